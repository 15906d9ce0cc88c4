// What a handler sees of HTTP: the request it was called for, the response it gives, and the writer that
// carries the response to the client.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

// The first value of `name` (any case), or null.
const std::string* find_header(const Headers& headers, std::string_view name);

// A request that was read completely and is well formed. Plain data.
struct Request {
  std::string method;  // as sent: "GET", "POST", "HEAD", ...
  std::string path;    // percent-decoded, without the query; "*" for "OPTIONS *"
  std::string query;   // what follows '?', not decoded
  Headers headers;     // in the order sent
  std::string body;    // chunked bodies are joined
  std::string remote;  // "127.0.0.1:54321", "[::1]:54321"

  const std::string* header(std::string_view name) const { return find_header(headers, name); }
  // The decoded value of the first `name` in the query; "" for a bare name; nothing when it is absent or its
  // percent encoding is wrong.
  std::optional<std::string> query_param(std::string_view name) const;
};

// A whole answer. Content-Length, Connection, Date and (where configured) CORS headers are added by the
// server. CR and LF in header values become spaces.
struct Response {
  int status = 200;
  std::string content_type = "application/json";  // no Content-Type header when empty
  Headers headers;
  std::string body;
};

// The way back to one client. Valid while the handler runs; every function is called from the handler's
// thread. Either one send(), or begin_stream(), any number of write(), and end().
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  // The whole answer. Does not wait for the client to read it. Nothing happens when the client is gone.
  virtual void send(Response response) = 0;

  // Sends the head of a streamed answer at once. False: the client is gone.
  // HTTP/1.1 clients get chunked transfer; for HTTP/1.0 the end of the connection ends the answer.
  virtual bool begin_stream(int status, std::string content_type, Headers headers = {}) = 0;
  // Sends `bytes` at once as one chunk. Waits while the client reads too slowly, at most for the write
  // timeout. False: the client is gone (or was too slow, which is the same from here on).
  virtual bool write(std::string_view bytes) = 0;
  // Ends the stream. A handler that returns without it ends the stream too; one that throws cuts the
  // connection, so that the client can tell that the answer is not complete.
  virtual void end() = 0;

  // The client has vanished. Noticed also while the handler does not write.
  virtual bool client_gone() const = 0;
  // `callback` is called at most once, when the client vanishes: at once if it already has, else from an I/O
  // thread, so it must be short and must not block. It is never called after the handler returned, but it may
  // race with the handler's own code: it should own what it uses (a shared_ptr, an id), or the handler calls
  // on_client_gone(nullptr) first, which forgets the callback and waits for one that is running.
  virtual void on_client_gone(std::function<void()> callback) = 0;

  // The handler has let go of the request's body: other requests may have its room.
  virtual void body_is_free() {}
};

// Called on a thread of its own: it may block, and take from the request what it keeps or needs no longer. An
// exception that escapes becomes a 500.
using Handler = std::function<void(Request&, ResponseWriter&)>;

}  // namespace fathom::http
