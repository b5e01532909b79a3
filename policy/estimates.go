package policy

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The estimates below err on the large side. All texts are known to be at most
// maxString long by now, so that no product overflows.

func rangeSize(o []*ast.Term) (int, error) {
	from, ok1 := whole(o, 0)
	to, ok2 := whole(o, 1)
	if !ok1 || !ok2 {
		return 0, nil
	}
	n := new(big.Int).Sub(to, from)
	n.Abs(n)
	if step, ok := whole(o[:min(3, len(o))], 2); ok && step.Sign() > 0 {
		n.Quo(n, step)
	}
	if n.Cmp(big.NewInt(maxRange)) >= 0 {
		return 0, fmt.Errorf("range has more than %d numbers", maxRange)
	}
	return int(n.Int64()) * termWeight, nil
}

func shiftSize(o []*ast.Term) (int, error) {
	if by, ok := whole(o, 1); ok && by.Cmp(big.NewInt(1024)) > 0 {
		return 0, errors.New("shift by more than 1024 bits")
	}
	return 0, nil
}

// numberText bounds the exponent of a number in a text.
func numberText(o []*ast.Term) (int, error) {
	s, ok := operand[ast.String](o, 0)
	if !ok {
		return 0, nil
	}
	digits, exponent := 0, false
	for _, c := range string(s) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == 'e' || c == 'E':
			exponent, digits = true, 0
		}
		if digits > maxDigits || exponent && digits > 3 {
			return 0, fmt.Errorf("is a number of more than %d digits", maxDigits)
		}
	}
	return 0, nil
}

func concatSize(o []*ast.Term) (int, error) {
	sep, _ := operand[ast.String](o, 0)
	n := 0
	switch v := o[1].Value.(type) {
	case *ast.Array:
		n = v.Len()
	case ast.Set:
		n = v.Len()
	}
	return n * len(sep), nil
}

// sprintfSize reads the verbs: a width makes much of nothing, and an index uses an
// argument many times.
func sprintfSize(o []*ast.Term) (int, error) {
	format, _ := operand[ast.String](o, 0)
	verbs, digits := 0, 0
	inVerb := false
	for _, c := range string(format) {
		switch {
		case c == '%' && !inVerb:
			inVerb, digits = true, 0
			verbs++
		case !inVerb:
		case c == '*':
			return 0, errors.New("width given by an argument")
		case c >= '0' && c <= '9':
			if digits++; digits > 3 {
				return 0, errors.New("width of more than 999")
			}
		case strings.ContainsRune("+-# .[]", c):
			digits = 0
		default:
			inVerb = false
		}
	}
	largest := 0
	if args, ok := operand[*ast.Array](o, 1); ok {
		args.Foreach(func(t *ast.Term) {
			w, _ := weigh(t) // it was within the bounds just now
			largest = max(largest, w)
		})
	}
	return len(format) + verbs*max(largest, 999), nil
}

func replaceSize(o []*ast.Term) (int, error) {
	s, _ := operand[ast.String](o, 0)
	old, _ := operand[ast.String](o, 1)
	with, _ := operand[ast.String](o, 2)
	return len(s) + (len(s)/max(1, len(old))+1)*len(with), nil
}

func replaceNSize(o []*ast.Term) (int, error) {
	patterns, _ := operand[ast.Object](o, 0)
	s, _ := operand[ast.String](o, 1)
	longest := 0
	if patterns != nil {
		patterns.Foreach(func(_, v *ast.Term) {
			if with, ok := v.Value.(ast.String); ok {
				longest = max(longest, len(with))
			}
		})
	}
	return len(s) + (len(s)+1)*longest, nil
}

func regexReplaceSize(o []*ast.Term) (int, error) {
	s, _ := operand[ast.String](o, 0)
	with, _ := operand[ast.String](o, 2)
	// Matches do not overlap, so all that one $ stands for is no longer than s.
	return len(s) + (len(s)+1)*len(with), nil
}

func submatchSize(o []*ast.Term) (int, error) {
	pattern, _ := operand[ast.String](o, 0)
	s, _ := operand[ast.String](o, 1)
	groups := 1 + strings.Count(string(pattern), "(")
	return (len(s) + 1) * groups * 16, nil // most matches are longer than a character
}

// pairsSize is for builtins that try each text of one collection on each of another.
func pairsSize(o []*ast.Term) (int, error) {
	size := func(t *ast.Term) int {
		switch v := t.Value.(type) {
		case *ast.Array:
			return v.Len()
		case ast.Set:
			return v.Len()
		}
		return 1
	}
	return size(o[0]) * size(o[1]), nil
}

// globSize refuses patterns that would be tried in very many ways.
func globSize(o []*ast.Term) (int, error) {
	pattern, _ := operand[ast.String](o, 0)
	if strings.Count(string(pattern), "*") > 8 || strings.Count(string(pattern), "{") > 8 || len(pattern) > 1024 {
		return 0, errors.New("pattern has more than 8 stars, 8 alternatives or 1024 characters")
	}
	return 0, nil
}

// localTime refuses the zone Local, which is another one on another machine.
func localTime(o []*ast.Term) (int, error) {
	for _, t := range o {
		if a, ok := t.Value.(*ast.Array); ok && a.Len() > 1 {
			if zone, ok := a.Elem(1).Value.(ast.String); ok && zone == "Local" {
				return 0, errors.New(`zone "Local" differs between machines: name the zone`)
			}
		}
	}
	return 0, nil
}
