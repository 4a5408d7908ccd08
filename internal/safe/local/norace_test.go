//go:build !race

package local_test

// raceAllocations are what the race detector adds to a lease.
const raceAllocations = 0
