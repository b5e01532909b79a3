//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Whose block requests a device works on. An object of its own, because a kernel whose
 * block layer differs from all that is known here must lose this and nothing else.
 */
#include "kernel.h"
#include "event.h"
#include "counts.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#include "io.h"
