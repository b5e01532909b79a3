package cgroupctl_test

import (
	"testing"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/cgroupctl/suite"
)

type fakeWorld struct {
	*cgroupctl.Fake
	pid int32
}

func (f *fakeWorld) Writer() suite.Writer { return f.Fake }
func (f *fakeWorld) Touches() bool        { return true }

func (f *fakeWorld) Make(_ *testing.T, name string) (cgroupctl.Ref, int32) {
	f.pid++
	return f.Fake.Make("/scratch/"+name, f.pid), f.pid
}

func (f *fakeWorld) Remove(_ *testing.T, r cgroupctl.Ref)            { f.Fake.Remove(r.Path) }
func (f *fakeWorld) Set(_ *testing.T, r cgroupctl.Ref, value string) { f.SetFreeze(r.Path, value) }
func (f *fakeWorld) Freeze(_ *testing.T, r cgroupctl.Ref) string     { return f.Fake.Freeze(r.Path) }

func (f *fakeWorld) ReadOnly(_ *testing.T, r cgroupctl.Ref) suite.Writer {
	f.SetReadOnly(r.Path, true)
	return f.Fake
}

func TestFake(t *testing.T) {
	suite.Run(t, func(*testing.T) suite.World {
		return &fakeWorld{Fake: cgroupctl.NewFake(), pid: 100}
	})
}
