import socket

words = ["CONTENT_LENGTH", "0", "SCGI", "1", "REQUEST_METHOD", "GET", "PATH_INFO", "/by-hand"]
variables = b"".join(word.encode() + b"\0" for word in words)
request = str(len(variables)).encode() + b":" + variables + b","

with socket.create_connection(("127.0.0.1", 4000)) as connection:
    connection.sendall(request)
    while data := connection.recv(65536):
        print(data.decode(), end="")
