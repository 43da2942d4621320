package main

import (
	"fmt"
	"sync"
	"time"
)

// Binary-trees; the work is described in pa_trees.c.

const minDepth = 4

type treeNode struct{ left, right *treeNode }

func build(depth int) *treeNode {
	if depth == 0 {
		return &treeNode{}
	}
	return &treeNode{build(depth - 1), build(depth - 1)}
}

func (n *treeNode) count() uint64 {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

var lasting *treeNode

func trees() {
	depth, threads := int(number("depth", 18)), int(number("threads", 2))
	if depth < minDepth || depth > 30 || threads < 1 || threads > 64 {
		die("depth 4..30, threads 1..64")
	}
	started := time.Now()
	nodes := build(depth + 1).count()
	lasting = build(depth)
	for d := minDepth; d <= depth; d += 2 {
		var group sync.WaitGroup
		found := make([]uint64, threads)
		count := 1 << (depth - d + minDepth)
		for t := range threads {
			share := count / threads
			if t < count%threads {
				share++
			}
			group.Add(1)
			go func() {
				defer group.Done()
				var sum uint64
				for range share {
					sum += build(d).count()
				}
				found[t] = sum
			}()
		}
		group.Wait()
		for _, one := range found {
			nodes += one
		}
	}
	nodes += lasting.count()
	wall := time.Since(started).Seconds()
	fmt.Printf(`{"collector": "go", "program": "trees", "nodes": %d, "wall_s": %.6f, "cpu_s": %.6f%s}`+"\n",
		nodes, wall, cpuSeconds(), readStops().since(stops{}).json())
}
