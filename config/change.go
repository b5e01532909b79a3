package config

// Change is a key whose value is another than before, both as YAML.
type Change struct{ Key, Was, Is string }

// Changes lists the keys in which two structs of one type differ.
func Changes(was, is any) []Change {
	var all []Change
	before, now := Keys(was), Keys(is)
	for i := range now {
		if before[i].Value != now[i].Value {
			all = append(all, Change{now[i].Name, before[i].Value, now[i].Value})
		}
	}
	return all
}
