// Command static is a client without any C library, which knows proxies and the
// usual files of certificates only.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Args[1], nil)
	if err == nil {
		request.Header.Set(os.Args[2], os.Args[3])
		client := &http.Client{Timeout: 15 * time.Second}
		var response *http.Response
		if response, err = client.Do(request); err == nil {
			fmt.Println(response.Status, response.Header)
			_, err = io.Copy(os.Stdout, response.Body)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
