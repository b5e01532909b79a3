package policy

import (
	"embed"
	"io/fs"
)

//go:embed rules/*.rego
var rules embed.FS

// Shipped returns the rules that come with breakerd, with their tests, as examples
// to start from. None is active unless an operator names it.
func Shipped() fs.FS {
	sub, err := fs.Sub(rules, "rules")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}
