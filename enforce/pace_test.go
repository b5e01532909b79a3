package enforce

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestAUserMakesSoManyRequestsASecondOverAllConnectionsAndHoldsNobodyElseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paces
		took := func(n int, uids ...uint32) time.Duration {
			began := time.Now()
			for i := range n {
				pace, _, leave := p.of(uids[i%len(uids)], false)
				if err := pace.Wait(context.Background()); err != nil {
					t.Fatal(err)
				}
				leave() // a new connection gives nothing new
			}
			return time.Since(began)
		}
		if d := took(otherBurst, 1000); d != 0 {
			t.Errorf("the first %d took %v", otherBurst, d)
		}
		if d := took(otherPace*3, 1000).Round(100 * time.Millisecond); d != 3*time.Second {
			t.Errorf("3 s of requests took %v", d)
		}
		if d := took(otherBurst, 1001); d != 0 {
			t.Errorf("another user waited %v", d)
		}
		time.Sleep(time.Minute)
		for uid := range uint32(2000) {
			took(1, uid)
		}
		if n := len(p.byUser); n > maxPaces+1 {
			t.Errorf("%d users are remembered", n)
		}
	})
}
