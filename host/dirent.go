package host

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// dirent is an entry of a directory. The name is only valid within the call.
type dirent struct {
	ino   uint64
	isDir bool
	name  []byte
}

// parseDirents calls f with each entry that getdents64(2) gave, except "." and
// "..". Unlike os.ReadDir it keeps the inode number, which for cgroup2 is the
// cgroup's identity. struct linux_dirent64, in the machine's byte order:
//
//	65 00 00 00 00 00 00 00   d_ino     101
//	01 00 00 00 00 00 00 00   d_off
//	20 00                     d_reclen  32
//	04                        d_type    DT_DIR
//	6e 67 69 6e 78 00 ..      d_name    "nginx", padded with NULs
func parseDirents(buf []byte, f func(dirent)) {
	const inoAt, reclenAt, typeAt, nameAt = 0, 16, 18, 19
	for len(buf) >= nameAt {
		length := int(binary.NativeEndian.Uint16(buf[reclenAt:]))
		if length < nameAt || length > len(buf) {
			return
		}
		name, _, _ := bytes.Cut(buf[nameAt:length], []byte{0})
		if s := string(name); s != "" && s != "." && s != ".." {
			f(dirent{
				ino:   binary.NativeEndian.Uint64(buf[inoAt:]),
				isDir: buf[typeAt] == unix.DT_DIR,
				name:  name,
			})
		}
		buf = buf[length:]
	}
}
