// Package arch holds tests about the code itself: arrows that must never
// exist, sizes, package comments, error ids and the sites that reveal a value.
package arch
