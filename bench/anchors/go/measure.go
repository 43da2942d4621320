package main

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"runtime/metrics"
	"strings"
	"syscall"
	"time"
)

var mainBegan = time.Now()

// A line on stderr with the seconds since the program began, as gctrace lines have them.
func mark(what string) { fmt.Fprintf(os.Stderr, "%s @%.3fs\n", what, time.Since(mainBegan).Seconds()) }

func cpuSeconds() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + 1e-6*float64(t.Usec) }
	return seconds(usage.Utime) + seconds(usage.Stime)
}

// The high water mark of this very program: wait4's knows also what forked it.
func peakRssKib() (kib int) {
	status, _ := os.ReadFile("/proc/self/status")
	if _, after, found := strings.Cut(string(status), "VmHWM:"); found {
		fmt.Sscan(after, &kib)
	}
	return
}

type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (r *random) below(limit uint32) uint32 {
	return uint32(((r.next() >> 32) * uint64(limit)) >> 32)
}

// An order of 0..n-1: as counted, or shuffled.
func order(n uint32, shuffled bool, seed random) []uint32 {
	order := make([]uint32, n)
	for i := range order {
		order[i] = uint32(i)
	}
	for i := n; shuffled && i > 1; i-- {
		j := seed.below(i)
		order[j], order[i-1] = order[i-1], order[j]
	}
	return order
}

// Log-linear histogram of nanoseconds: 32 buckets a doubling, so within 3 %.
const (
	subBits = 5
	sub     = 1 << subBits
	buckets = 60 * sub
)

type histogram struct {
	counts              [buckets]uint64
	count, sumNs, maxNs uint64
}

func (h *histogram) record(ns uint64) {
	bucket := ns
	if ns >= sub {
		shift := uint64(63 - bits.LeadingZeros64(ns) - subBits)
		bucket = shift<<subBits + ns>>shift
	}
	h.counts[min(bucket, buckets-1)]++
	h.count++
	h.sumNs += ns
	h.maxNs = max(h.maxNs, ns)
}

func (h *histogram) merge(from *histogram) {
	for i := range h.counts {
		h.counts[i] += from.counts[i]
	}
	h.count += from.count
	h.sumNs += from.sumNs
	h.maxNs = max(h.maxNs, from.maxNs)
}

func bucketNs(bucket uint64) uint64 {
	if bucket < 2*sub {
		return bucket
	}
	shift := bucket>>subBits - 1
	return (bucket-shift<<subBits)<<shift + 1<<shift>>1
}

func (h *histogram) quantile(q float64) float64 {
	rank, seen := uint64(math.Ceil(q*float64(h.count))), uint64(0)
	for i, count := range h.counts {
		seen += count
		if seen >= rank && seen > 0 {
			return float64(min(bucketNs(uint64(i)), h.maxNs))
		}
	}
	return 0
}

func (h *histogram) json() string {
	return fmt.Sprintf(`, "op_p50_ns": %.0f, "op_p99_ns": %.0f, "op_p999_ns": %.0f, "op_max_us": %.1f`,
		h.quantile(0.50), h.quantile(0.99), h.quantile(0.999), 1e-3*float64(h.maxNs))
}

// The stops of the collector, each from the decision to stop until the world runs again, as the runtime keeps
// them: a histogram of four buckets a doubling, so a length is its bucket's middle. (debug.ReadGCStats has exact
// lengths, but one a cycle, the sum of its stops.)
type stops struct {
	cycles uint64
	counts []uint64
	edges  []float64
}

func readStops() stops {
	samples := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(samples)
	lengths := samples[0].Value.Float64Histogram()
	return stops{samples[1].Value.Uint64(), append([]uint64(nil), lengths.Counts...), lengths.Buckets}
}

func (s stops) since(before stops) stops {
	for i := range before.counts {
		s.counts[i] -= before.counts[i]
	}
	s.cycles -= before.cycles
	return s
}

func (s stops) middle(i int) float64 {
	low, high := s.edges[i], s.edges[i+1]
	if math.IsInf(low, -1) {
		low = 0
	}
	if math.IsInf(high, 1) {
		high = low
	}
	return (low + high) / 2
}

func (s stops) json() string {
	total, sum, last := uint64(0), 0.0, 0.0
	for i, count := range s.counts {
		total += count
		if count > 0 {
			last = s.middle(i)
			sum += float64(count) * last
		}
	}
	quantile := func(q float64) float64 {
		rank, seen := uint64(math.Ceil(q*float64(total))), uint64(0)
		for i, count := range s.counts {
			seen += count
			if seen >= rank && seen > 0 {
				return s.middle(i)
			}
		}
		return 0
	}
	return fmt.Sprintf(`, "cycles": %d, "stops": %d, "stop_p50_us": %.2f, "stop_p99_us": %.2f, "stop_max_us": %.2f, "stop_total_ms": %.3f, "peak_rss_kib": %d`,
		s.cycles, total, 1e6*quantile(0.50), 1e6*quantile(0.99), 1e6*last, 1e3*sum, peakRssKib())
}
