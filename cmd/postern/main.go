// Command postern lets AI agents work with all of their keys and hold none of them.
package main

func main() {}
