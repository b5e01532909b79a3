package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

// docs/policy.md, by the programs themselves: what the stories of breakerctl leave out is
// what needs a running breakerd.
func TestTheWalkFromAFirstPolicyUntilItActs(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF, kerneltest.PSI)
	dir := filepath.Dir(bin(t, "breakerd"))
	load := kerneltest.ScratchCgroup(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/walk",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("CGROUP", load.Dir)
			return nil
		},
	})
}
