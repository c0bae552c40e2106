// The site of native.py with Go's own net/http/fcgi, on the socket that is its standard input.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/fcgi"
	"strconv"
	"time"
)

func answer(w http.ResponseWriter, body []byte, contentType string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func hello(w http.ResponseWriter, r *http.Request) {
	answer(w, []byte("Hello, world!\n"), "text/plain; charset=utf-8")
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, body, "application/octet-stream")
}

func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	piece := append(bytes.Repeat([]byte("x"), 1023), '\n')
	for i := 0; i < 16; i++ {
		w.Write(piece)
		w.(http.Flusher).Flush()
	}
}

func upload(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, []byte(fmt.Sprintf("%d\n", size)), "text/plain; charset=utf-8")
}

func download(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.Atoi(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(size))
	block := bytes.Repeat([]byte("x"), 65536)
	for i := 0; i < size/len(block); i++ {
		w.Write(block)
	}
}

func wait(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Millisecond)
	hello(w, r)
}

func main() {
	http.HandleFunc("/hello", hello)
	http.HandleFunc("/echo", echo)
	http.HandleFunc("/stream", stream)
	http.HandleFunc("/upload", upload)
	http.HandleFunc("/download", download)
	http.HandleFunc("/wait", wait)
	log.Fatal(fcgi.Serve(nil, nil))
}
