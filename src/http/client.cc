#include "http/client.h"

#include <charconv>
#include <utility>

#include "http/client_connection.h"

namespace fathom::http {
namespace {

void append_header(std::string_view name, std::string_view value, std::string* out) {
  *out += name;
  *out += ": ";
  *out += value;
  *out += "\r\n";
}

}  // namespace

Client::Client(std::string host, uint16_t port, ClientOptions options)
    : host_(std::move(host)), port_(port), options_(std::move(options)) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

Result<Client> Client::from_url(std::string_view url, ClientOptions options) {
  const auto wrong = [&] {
    return error(ErrorCode::kInvalidArgument, "\"{}\" is not an address of the form http://host:port", url);
  };
  std::string_view rest = url;
  if (!rest.starts_with("http://")) return wrong();
  rest.remove_prefix(7);
  rest = rest.substr(0, rest.find('/'));
  std::string_view host = rest;
  std::string_view port = "80";
  const size_t colon = rest.rfind(':');
  if (rest.starts_with('[')) {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) return wrong();
    host = rest.substr(1, close - 1);
    if (close + 1 < rest.size()) {
      if (rest[close + 1] != ':') return wrong();
      port = rest.substr(close + 2);
    }
  } else if (colon != std::string_view::npos) {
    host = rest.substr(0, colon);
    port = rest.substr(colon + 1);
  }
  uint16_t number = 0;
  const auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (host.empty() || failure != std::errc() || end != port.data() + port.size() || number == 0)
    return wrong();
  return Client(std::string(host), number, std::move(options));
}

void Client::close() {
  connection_.reset();
}

Result<ClientResponse> Client::get(std::string_view target, const Headers& headers) {
  return request("GET", target, {}, headers);
}

Result<ClientResponse> Client::post(std::string_view target, std::string_view body, const Headers& headers) {
  return request("POST", target, body, headers);
}

Result<ClientResponse> Client::request(std::string_view method, std::string_view target,
                                       std::string_view body, const Headers& headers) {
  std::string received;
  FATHOM_ASSIGN(ClientResponse response, stream(method, target, body, headers, [&](std::string_view bytes) {
                  received += bytes;
                  return true;
                }));
  response.body = std::move(received);
  return response;
}

Result<ClientResponse> Client::stream(std::string_view method, std::string_view target, std::string_view body,
                                      const Headers& headers,
                                      const std::function<bool(std::string_view)>& on_bytes) {
  return exchange(method, target, body, headers,
                  [&](const ClientResponse&, std::string_view bytes) { return on_bytes(bytes); });
}

Result<ClientResponse> Client::stream_events(std::string_view method, std::string_view target,
                                             std::string_view body, const Headers& headers,
                                             const std::function<bool(const SseEvent&)>& on_event) {
  SseParser parser;
  std::string other;
  bool go_on = true;
  bool valid = true;
  FATHOM_ASSIGN(
      ClientResponse response,
      exchange(method, target, body, headers, [&](const ClientResponse& head, std::string_view bytes) {
        const std::string* type = head.header("Content-Type");
        if (type == nullptr || !type->starts_with("text/event-stream")) {
          other += bytes;
          return true;
        }
        valid = parser.feed(bytes, [&](const SseEvent& event) { go_on = go_on && on_event(event); });
        return valid && go_on;
      }));
  if (!valid) return error(ErrorCode::kTooLarge, "the server sent an event that is too large");
  response.body = std::move(other);
  return response;
}

Result<ClientResponse> Client::exchange(std::string_view method, std::string_view target,
                                        std::string_view body, const Headers& headers,
                                        const ByteSink& on_bytes) {
  std::string head = fmt::format("{} {} HTTP/1.1\r\n", method, target);
  const bool bare_ipv6 = host_.find(':') != std::string::npos;
  append_header("Host", fmt::format(fmt::runtime(bare_ipv6 ? "[{}]:{}" : "{}:{}"), host_, port_), &head);
  for (const auto& [name, value] : options_.headers) append_header(name, value, &head);
  for (const auto& [name, value] : headers) append_header(name, value, &head);
  if (!body.empty() || method == "POST" || method == "PUT") {
    append_header("Content-Length", std::to_string(body.size()), &head);
    if (find_header(headers, "Content-Type") == nullptr)
      append_header("Content-Type", "application/json", &head);
  }
  head += "\r\n";
  head += body;
  while (true) {
    const bool reused = connection_ != nullptr;
    if (!reused) {
      FATHOM_ASSIGN(connection_, ClientConnection::open(host_, port_, options_));
    }
    Result<void> sent = connection_->send(head);
    if (options_.half_close) connection_->shutdown_sending();
    Result<ClientConnection::Reply> reply = sent.ok()
                                                ? connection_->receive(method == "HEAD", options_, on_bytes)
                                                : Result<ClientConnection::Reply>(sent.error());
    if (reply.ok()) {
      if (!reply->reusable || options_.half_close) close();
      return std::move(reply->response);
    }
    // A kept-alive connection may have been closed by the server before it saw this request: try a new one.
    const bool again =
        reused && !connection_->got_bytes() && reply.error().code != ErrorCode::kDeadlineExceeded;
    close();
    if (!again)
      return reply.error().with_context(fmt::format("{} http://{}:{}{}", method, host_, port_, target));
  }
}

}  // namespace fathom::http
