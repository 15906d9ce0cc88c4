"""The server under test, seen through the openai client and through raw HTTP."""
import http.client
import json
import socket
import urllib.parse

import anthropic
import openai


class Target:
    def __init__(self, base, api_key=""):
        self.base = base.rstrip("/")
        self.api_key = api_key
        parts = urllib.parse.urlsplit(self.base)
        self.host, self.port = parts.hostname, parts.port
        self.client = openai.OpenAI(base_url=self.base + "/v1", api_key=api_key or "none", max_retries=0, timeout=60)
        self.anthropic = anthropic.Anthropic(base_url=self.base, api_key=api_key or "none", max_retries=0, timeout=60)
        self.async_client = lambda: openai.AsyncOpenAI(base_url=self.base + "/v1", api_key=api_key or "none",
                                                       max_retries=0, timeout=60)
        self.model = self.client.models.list().data[0].id

    def chat(self, content, **fields):
        """A greedy chat of one question, unless the fields say otherwise."""
        fields = {"model": self.model, "temperature": 0, **fields}
        return self.client.chat.completions.create(messages=[{"role": "user", "content": content}], **fields)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, bytes). A dict is sent as JSON, bytes and str as they are."""
        headers = dict(headers or {})
        if self.api_key:
            headers.setdefault("Authorization", f"Bearer {self.api_key}")
        if isinstance(body, dict):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body.encode() if isinstance(body, str) else body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.request("GET", path)
        return status, json.loads(body or b"null")

    def post(self, path, body):
        """(status, parsed JSON or text)."""
        status, _, text = self.request("POST", path, body)
        try:
            return status, json.loads(text or b"null")
        except ValueError:
            return status, text.decode()

    def events(self, path, body):
        """The parsed events of a stream, which must end with [DONE]."""
        status, headers, text = self.request("POST", path, {**body, "stream": True})
        assert status == 200 and headers["content-type"].startswith("text/event-stream"), (status, text)
        data = [line[6:] for line in text.decode().split("\n") if line.startswith("data: ")]
        assert data[-1] == "[DONE]", data[-1:]
        return [json.loads(one) for one in data[:-1]]

    def raw(self, head_and_body):
        """An open socket after sending the bytes: for clients that misbehave."""
        connection = socket.create_connection((self.host, self.port), timeout=60)
        connection.sendall(head_and_body)
        return connection

    def raw_post(self, path, body):
        text = json.dumps(body).encode()
        key = f"Authorization: Bearer {self.api_key}\r\n" if self.api_key else ""
        return self.raw(f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{key}"
                        f"Content-Length: {len(text)}\r\n\r\n".encode() + text)

    def load(self):
        """The scheduler's figures from /server_info."""
        return self.get("/server_info")[1]["internal_states"][0]

    def abort_all(self):
        return self.post("/abort_request", {"abort_all": True})

    def busy(self):
        load = self.load()
        return load["num_running_reqs"] + load["num_waiting_reqs"]
