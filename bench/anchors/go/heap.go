package main

import (
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// The heap of linked objects and its mutators; pa_heap.h describes both.

type node struct {
	left, right *node
	value, rest uint64
}

const linked = 7

type forest struct {
	table          []*node
	nodes          uint32
	started, ended time.Duration
	latency        histogram
}

// Package variables are roots.
var forests []forest

func buildForests(count int, nodes uint32, shuffled bool) {
	order := order(nodes, shuffled, 1)
	at := make([]*node, nodes)
	for i := range at {
		at[i] = &node{value: uint64(i)}
	}
	forests = make([]forest, count)
	base := 0
	for t := range forests {
		size := int(nodes) / count
		if t < int(nodes)%count {
			size++
		}
		table := make([]*node, (size+linked-1)/linked)
		for i := range table {
			tree := order[base+i*linked : base+min(size, (i+1)*linked)]
			table[i] = at[tree[0]]
			for m := 2; m <= len(tree); m++ {
				parent := at[tree[m/2-1]]
				if m&1 != 0 {
					parent.right = at[tree[m-1]]
				} else {
					parent.left = at[tree[m-1]]
				}
			}
		}
		forests[t].table, forests[t].nodes = table, uint32(size)
		base += size
	}
}

func (n *node) count(sum *uint64) uint64 {
	if n == nil {
		return 0
	}
	*sum += n.value
	return 1 + n.left.count(sum) + n.right.count(sum)
}

func isWhole() bool {
	var nodes, found, sum uint64
	for t := range forests {
		nodes += uint64(forests[t].nodes)
		for _, root := range forests[t].table {
			found += root.count(&sum)
		}
	}
	return found == nodes && sum == nodes*(nodes-1)/2
}

func (f *forest) find(which uint32) **node {
	slot := &f.table[which/linked]
	m := which%linked + 1
	for bit := bits.Len32(m) - 2; bit >= 0; bit-- {
		if m>>bit&1 != 0 {
			slot = &(*slot).right
		} else {
			slot = &(*slot).left
		}
	}
	return slot
}

var sink *node

func (f *forest) mutate(seed random, base time.Time, deadline time.Duration, churn int) {
	now := time.Since(base)
	f.started = now
	var dropped *node
	for {
		fresh := new(node)
		slot := f.find(seed.below(f.nodes))
		old := *slot
		fresh.value, fresh.left, fresh.right = old.value, old.left, old.right
		*slot = fresh
		for range churn {
			dropped = newNode()
		}
		before := now
		now = time.Since(base)
		f.latency.record(uint64(now - before))
		if now >= deadline {
			break
		}
	}
	f.ended = now
	sink = dropped
}

//go:noinline
func newNode() *node { return new(node) }

func heapOptions() (n uint32, threads int, shuffled bool) {
	n, threads = uint32(number("n", 20e6)), int(number("threads", 2))
	shuffled = text("order", "random") == "random"
	if threads < 1 || threads > 64 || n < 4*uint32(threads) || n > 2000000000 {
		die("threads 1..64, n 4 * threads..2e9")
	}
	return
}

func orderName(shuffled bool) string {
	if shuffled {
		return "random"
	}
	return "alloc"
}

// GOMAXPROCS limits the marking threads. runtime.GC returns when all is swept.
func full() {
	n, _, shuffled := heapOptions()
	runs := int(number("runs", 5))
	percent := debug.SetGCPercent(-1)
	started := time.Now()
	buildForests(1, n, shuffled)
	built := time.Since(started).Seconds()
	runtime.GC()
	before, cpu := readStops(), cpuSeconds()
	times := make([]float64, runs)
	for i := range times {
		started = time.Now()
		runtime.GC()
		times[i] = 1e3 * time.Since(started).Seconds()
	}
	cpu = cpuSeconds() - cpu
	slices.Sort(times)
	after := readStops().since(before)
	median := times[len(times)/2]
	debug.SetGCPercent(percent)
	fmt.Printf(`{"collector": "go", "program": "full", "n": %d, "order": "%s", "build_s": %.3f, "ms": %.3f, `+
		`"ms_min": %.3f, "ns_per_object": %.3f, "cpu_ns_per_object": %.3f, "whole": %t%s}`+"\n",
		n, orderName(shuffled), built, median, times[0], 1e6*median/float64(n), 1e9*cpu/float64(runs)/float64(n),
		isWhole(), after.json())
}

func mutate() {
	n, threads, shuffled := heapOptions()
	seconds, churn := number("seconds", 30), int(number("churn", 8))
	started := time.Now()
	buildForests(threads, n, shuffled)
	built := time.Since(started).Seconds()
	mark("mutate begins")
	before, cpu := readStops(), cpuSeconds()
	started = time.Now()
	var group sync.WaitGroup
	for t := range forests {
		group.Add(1)
		go func() {
			defer group.Done()
			forests[t].mutate(random(1000+t), started, time.Duration(1e9*seconds), churn)
		}()
	}
	group.Wait()
	wall := time.Since(started).Seconds()
	cpu = cpuSeconds() - cpu
	mark("mutate ends")
	after := readStops().since(before)
	mops := 0.0
	latency := new(histogram)
	for t := range forests {
		mops += 1e3 * float64(forests[t].latency.count) / float64(forests[t].ended-forests[t].started)
		latency.merge(&forests[t].latency)
	}
	fmt.Printf(`{"collector": "go", "program": "mutate", "n": %d, "build_s": %.3f, "wall_s": %.6f, "cpu_s": %.6f, `+
		`"mops": %.6f%s%s, "whole": %t}`+"\n", n, built, wall, cpu, mops, latency.json(), after.json(), isWhole())
}
