package config

// BadValue is a value that cannot be, with the key that has it: names from the outermost
// on, joined by dots.
type BadValue struct{ Key, What string }

func (e *BadValue) Error() string { return e.Key + ": " + e.What }
