"""A chat server that says what a test tells it to, when the test tells it to, and keeps what it was asked."""
import http.server
import json
import queue
import threading


class ScriptedServer:
    """with ScriptedServer() as server: server.say("Hel"); server.say("lo"); server.end() ... server.asked.get()"""

    def __init__(self, status=200):
        self.status = status
        self.asked = queue.Queue()  # (path, headers, body) of each request
        self._pieces = queue.Queue()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                outer._answer(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        return False

    def say(self, text):
        self._pieces.put({"choices": [{"index": 0, "delta": {"content": text}}]})

    def end(self, tokens=1):
        self._pieces.put({"choices": [], "usage": {"completion_tokens": tokens}})
        self._pieces.put(None)

    def _answer(self, request):
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.asked.put((request.path, dict(request.headers), body))
        if self.status != 200:
            text = json.dumps({"error": {"message": "the test refuses"}}).encode()
            request.send_response(self.status)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(text)))
            request.end_headers()
            request.wfile.write(text)
            return
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while True:
            event = self._pieces.get(timeout=60)
            data = b"data: [DONE]\n\n" if event is None else b"data: " + json.dumps(event).encode() + b"\n\n"
            request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            request.wfile.flush()
            if event is None:
                request.wfile.write(b"0\r\n\r\n")
                return
