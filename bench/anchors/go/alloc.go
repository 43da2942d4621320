package main

import (
	"fmt"
	"time"
)

// What an allocation costs, one thread; the work is described in pa_alloc.c. One loop a type, because the
// compiler calls an allocator made for the size where it knows the type.

type (
	pointers2 [2]*byte
	pointers8 [8]*byte
)

var (
	sinkBytes8     *[8]byte
	sinkBytes16    *[16]byte
	sinkBytes32    *[32]byte
	sinkBytes64    *[64]byte
	sinkBytes256   *[256]byte
	sinkBytes1024  *[1024]byte
	sinkPointers16 *pointers2
	sinkPointers64 *pointers8
)

var loops = map[string]func(count int){
	"bytes 8": func(count int) {
		for range count {
			sinkBytes8 = new([8]byte)
		}
	},
	"bytes 16": func(count int) {
		for range count {
			sinkBytes16 = new([16]byte)
		}
	},
	"bytes 32": func(count int) {
		for range count {
			sinkBytes32 = new([32]byte)
		}
	},
	"bytes 64": func(count int) {
		for range count {
			sinkBytes64 = new([64]byte)
		}
	},
	"bytes 256": func(count int) {
		for range count {
			sinkBytes256 = new([256]byte)
		}
	},
	"bytes 1024": func(count int) {
		for range count {
			sinkBytes1024 = new([1024]byte)
		}
	},
	"pointers 16": func(count int) {
		for range count {
			sinkPointers16 = new(pointers2)
		}
	},
	"pointers 64": func(count int) {
		for range count {
			sinkPointers64 = new(pointers8)
		}
	},
}

func alloc() {
	kind, size, count := text("kind", "bytes"), int(number("size", 16)), int(number("count", 50e6))
	loop := loops[fmt.Sprint(kind, " ", size)]
	if loop == nil {
		die("bytes of 8, 16, 32, 64, 256, 1024; pointers of 16, 64")
	}
	loop(count / 20) // to warm up
	before, cpu := readStops(), cpuSeconds()
	started := time.Now()
	loop(count)
	wall := time.Since(started).Seconds()
	cpu = cpuSeconds() - cpu
	fmt.Printf(`{"collector": "go", "program": "alloc", "kind": "%s", "size": %d, "ns_alloc": %.4f, `+
		`"cpu_ns_alloc": %.4f, "wall_s": %.6f, "cpu_s": %.6f%s}`+"\n", kind, size, 1e9*wall/float64(count),
		1e9*cpu/float64(count), wall, cpu, readStops().since(before).json())
}
