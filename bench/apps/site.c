/* The site of native.py with libfcgi, on the socket that is its standard input: one request after the other. */
#include <fcgiapp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT "text/plain; charset=utf-8"
#define BINARY "application/octet-stream"

static char block[65536];

static const char *parameter(FCGX_Request *request, const char *name)
{
    const char *value = FCGX_GetParam(name, request->envp);
    return value ? value : "";
}

static void head(FCGX_Request *request, const char *type, long length)
{
    FCGX_FPrintF(request->out, "Content-Type: %s\r\nContent-Length: %ld\r\n\r\n", type, length);
}

static void hello(FCGX_Request *request)
{
    head(request, TEXT, 14);
    FCGX_PutStr("Hello, world!\n", 14, request->out);
}

static void echo(FCGX_Request *request)
{
    long length = atol(parameter(request, "CONTENT_LENGTH"));
    char *body = malloc(length + 1);
    int got = FCGX_GetStr(body, length, request->in);
    head(request, BINARY, got);
    FCGX_PutStr(body, got, request->out);
    free(body);
}

static void stream(FCGX_Request *request)
{
    char piece[1024];
    memset(piece, 'x', sizeof piece - 1);
    piece[sizeof piece - 1] = '\n';
    FCGX_PutS("Content-Type: " BINARY "\r\n\r\n", request->out);
    for (int i = 0; i < 16; i++) {
        FCGX_PutStr(piece, sizeof piece, request->out);
        FCGX_FFlush(request->out);
    }
}

static void upload(FCGX_Request *request)
{
    char text[32];
    long size = 0;
    int got;
    while ((got = FCGX_GetStr(block, sizeof block, request->in)) > 0)
        size += got;
    memset(block, 'x', sizeof block);
    int length = snprintf(text, sizeof text, "%ld\n", size);
    head(request, TEXT, length);
    FCGX_PutStr(text, length, request->out);
}

static void download(FCGX_Request *request)
{
    long size = atol(parameter(request, "QUERY_STRING"));
    head(request, BINARY, size);
    for (long i = 0; i < size / (long)sizeof block; i++)
        FCGX_PutStr(block, sizeof block, request->out);
}

static void delayed(FCGX_Request *request)
{
    usleep(1000);
    hello(request);
}

int main(void)
{
    static const struct { const char *path; void (*page)(FCGX_Request *); } site[] = {
        {"/hello", hello},   {"/echo", echo},         {"/stream", stream},
        {"/upload", upload}, {"/download", download}, {"/wait", delayed},
    };
    FCGX_Request request;
    memset(block, 'x', sizeof block);
    FCGX_Init();
    FCGX_InitRequest(&request, 0, 0);
    while (FCGX_Accept_r(&request) == 0) {
        const char *path = parameter(&request, "PATH_INFO");
        size_t i = 0;
        while (i < sizeof site / sizeof *site && strcmp(site[i].path, path))
            i++;
        if (i < sizeof site / sizeof *site)
            site[i].page(&request);
        else
            FCGX_PutS("Status: 404 Not Found\r\nContent-Type: " TEXT "\r\n\r\n", request.out);
        FCGX_Finish_r(&request);
    }
    return 0;
}
