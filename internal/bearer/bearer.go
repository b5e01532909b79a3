// Package bearer shows an HTTP server a token that stands in a file.
package bearer

import (
	"fmt"
	"net/http"
	"os"
	"strings"
)

// Add sends the content of a file with a request; "" is none. It is read each time, so that
// a token can be exchanged.
func Add(r *http.Request, file string) error {
	if file == "" {
		return nil
	}
	token, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return nil
}
