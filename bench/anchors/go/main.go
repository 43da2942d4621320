// The Go side of bench/anchors: the same work as the C programs beside this folder, standard library only.
//
//	anchors trees|full|mutate|alloc name=value ...
//
// One JSON object on one line. Whoever changes a program here changes its two C brothers.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

func die(what string) {
	fmt.Fprintln(os.Stderr, "anchors:", what)
	os.Exit(1)
}

func text(name, otherwise string) string {
	for _, word := range os.Args[2:] {
		if value, found := strings.CutPrefix(word, name+"="); found {
			return value
		}
	}
	return otherwise
}

func number(name string, otherwise float64) float64 {
	given := text(name, "")
	if given == "" {
		return otherwise
	}
	value, err := strconv.ParseFloat(given, 64)
	if err != nil || value < 0 {
		die("a number that is none: " + given)
	}
	return value
}

func main() {
	programs := map[string]func(){"trees": trees, "full": full, "mutate": mutate, "alloc": alloc}
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		die("trees|full|mutate|alloc name=value ...")
	}
	programs[os.Args[1]]()
}
