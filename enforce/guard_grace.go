package enforce

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/model"
)

// guardGrace gives trouble the time to pass by itself.
func guardGrace(d *model.Decision, f *facts) string {
	grace := f.config.Grace.D()
	if age := d.At.Sub(d.OpenedAt); grace > 0 && age < grace {
		return fmt.Sprintf("the incident has been open for %s, and nothing is done before %s (grace)", age.Round(time.Millisecond), grace)
	}
	return ""
}
