// Command postern-bench measures the built product against the proxies that are
// installed, in the same interleaved rounds, and judges the ratios. It is a
// module of its own, so that what it needs stays out of the product.
package main
