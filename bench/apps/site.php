<?php
// The site of native.py as a PHP page.

function answer(string $body, string $type): void
{
    header("Content-Type: $type");
    header('Content-Length: ' . strlen($body));
    echo $body;
}

switch ($_SERVER['PATH_INFO']) {
    case '/hello':
        answer("Hello, world!\n", 'text/plain; charset=utf-8');
        break;
    case '/echo':
        answer(file_get_contents('php://input'), 'application/octet-stream');
        break;
    case '/stream':
        header('Content-Type: application/octet-stream');
        $piece = str_repeat('x', 1023) . "\n";
        for ($i = 0; $i < 16; $i++) {
            echo $piece;
            flush();
        }
        break;
    case '/upload':
        $size = 0;
        $input = fopen('php://input', 'rb');
        while (($chunk = fread($input, 65536)) !== false && $chunk !== '') {
            $size += strlen($chunk);
        }
        answer("$size\n", 'text/plain; charset=utf-8');
        break;
    case '/download':
        $size = (int) $_SERVER['QUERY_STRING'];
        header('Content-Type: application/octet-stream');
        header("Content-Length: $size");
        $block = str_repeat('x', 65536);
        for ($i = 0; $i < intdiv($size, 65536); $i++) {
            echo $block;
        }
        break;
    case '/wait':
        usleep(1000);
        answer("Hello, world!\n", 'text/plain; charset=utf-8');
        break;
    default:
        http_response_code(404);
}
