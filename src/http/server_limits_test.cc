// What a server refuses: too large, too slow, too many, not HTTP.
#include <array>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "http/client.h"
#include "http/server.h"
#include "http/test_socket.h"

namespace fathom::http {
namespace {

using std::chrono::milliseconds;

void ok(const Request&, ResponseWriter& writer) {
  writer.send(text_response("ok"));
}

// The complete answer to `bytes`; the server must end the connection itself.
std::string answer_to(const Server& server, std::string_view bytes, bool shut_down = false) {
  TestSocket socket(server.port());
  socket.send(bytes);
  if (shut_down) socket.shutdown_write();
  std::string all = socket.read_all(std::chrono::seconds(5));
  EXPECT_TRUE(socket.ended()) << bytes.substr(0, 200);
  return all;
}

void expect_error(const std::string& answer, int status, std::string_view code) {
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ")) << answer;
  EXPECT_NE(answer.find("Content-Type: application/json\r\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("\r\n\r\n{\"error\":{\"message\":\""), std::string::npos) << answer;
  EXPECT_NE(answer.find("\"code\":\"" + std::string(code) + "\""), std::string::npos) << answer;
}

TEST(ServerLimits, RefusesMalformedRequests) {
  const auto server = start_test_server(ok);
  const std::pair<const char*, int> cases[] = {
      {"\x16\x03\x01\x02\x01\r\n\r\n", 400},  // TLS to a plain port
      {"GET\r\n\r\n", 400},
      {"GET / \r\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"GET / HTTP/1.1\r\n\r\n", 400},  // no Host
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: a\n\n", 400},
      {"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET nothing HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\nx", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\nx", 417},
  };
  for (const auto& [bytes, status] : cases) {
    const std::string answer = answer_to(*server, bytes);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ")) << bytes << "\n" << answer;
    EXPECT_NE(answer.find(R"({"error":{"message":")"), std::string::npos) << answer;
  }
  EXPECT_EQ(server->stats().requests_total, 0);
  EXPECT_EQ(server->stats().bad_requests, static_cast<int64_t>(std::size(cases)));
  EXPECT_EQ(Client("127.0.0.1", server->port()).get("/")->status, 200);
}

TEST(ServerLimits, AnswersTruncatedRequests) {
  const auto server = start_test_server(ok);
  const std::string whole = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
  for (size_t n = 1; n < whole.size(); ++n) {
    expect_error(answer_to(*server, std::string_view(whole).substr(0, n), true), 400, "bad_request");
  }
  const std::string chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
  expect_error(answer_to(*server, chunked, true), 400, "bad_request");
  EXPECT_EQ(server->stats().requests_total, 0);
}

TEST(ServerLimits, SurvivesRandomGarbage) {
  const auto server = start_test_server(ok);
  std::mt19937 random(7);
  const std::string seed =
      "POST /a?b=c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  for (int i = 0; i < 200; ++i) {
    std::string bytes = i % 2 == 0 ? seed : std::string(random() % 200 + 1, '\0');
    const size_t changes = i % 2 == 0 ? random() % 6 + 1 : bytes.size();
    for (size_t c = 0; c < changes; ++c)
      bytes[i % 2 == 0 ? random() % bytes.size() : c] = static_cast<char>(random());
    answer_to(*server, bytes, true);
  }
  EXPECT_EQ(Client("127.0.0.1", server->port()).get("/")->status, 200);
  EXPECT_TRUE(eventually([&] { return server->stats().connections_open == 0; }));
}

TEST(ServerLimits, LimitsHeads) {
  ServerOptions options;
  options.max_header_bytes = 2048;
  const auto server = start_test_server(ok, options);
  const std::string fits =
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + std::string(1900, 'x') + "\r\n\r\n";
  EXPECT_TRUE(answer_to(*server, fits).starts_with("HTTP/1.1 200"));
  const std::string large = "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(3000, 'x');
  expect_error(answer_to(*server, large + "\r\n\r\n"), 431, "headers_too_large");
  expect_error(answer_to(*server, large), 431, "headers_too_large");
  expect_error(answer_to(*server, "GET /" + std::string(3000, 'x')), 431, "headers_too_large");
  expect_error(answer_to(*server, std::string(100'000, 'x')), 431, "headers_too_large");
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 1000; ++i) many += "a:\r\n";
  expect_error(answer_to(*server, many + "\r\n"), 431, "headers_too_large");
}

TEST(ServerLimits, LimitsBodies) {
  ServerOptions options;
  options.max_body_bytes = 1000;
  options.max_header_bytes = 2048;
  const auto server = start_test_server(ok, options);
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
  EXPECT_TRUE(answer_to(*server, head + "Content-Length: 1000\r\n\r\n" + std::string(1000, 'x'))
                  .starts_with("HTTP/1.1 200"));
  expect_error(answer_to(*server, head + "Content-Length: 1001\r\n\r\n" + std::string(1001, 'x')), 413,
               "body_too_large");
  // Refused before it is sent, and no word of going on.
  expect_error(answer_to(*server, head + "Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"), 413,
               "body_too_large");
  std::string chunked = head + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 11; ++i) chunked += "64\r\n" + std::string(100, 'x') + "\r\n";
  expect_error(answer_to(*server, chunked), 413, "body_too_large");
  // A chunk's extension and the trailer are no way round the limits.
  const std::string endless = head + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(10'000, 'x');
  expect_error(answer_to(*server, endless), 400, "bad_request");
  const std::string trailer = head + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + std::string(10'000, 'x');
  EXPECT_TRUE(answer_to(*server, trailer).starts_with("HTTP/1.1 4"));
}

// Whoever must not send a body is told so before it is read.
TEST(ServerLimits, ReadsNoBodyThatNobodyNeeds) {
  ServerOptions options;
  options.needs = [](const Request& head) { return RequestNeeds{.body = head.header("x-key") != nullptr}; };
  const auto server = start_test_server(
      [](const Request& request, ResponseWriter& writer) {
        const bool known = request.header("x-key") != nullptr;
        writer.send(text_response(known ? request.body : "no key" + request.body, known ? 200 : 401));
      },
      options);
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\n";
  for (const char* rest : {"Content-Length: 60000000\r\n\r\n", "Content-Length: 60000000\r\n\r\nabc",
                           "Content-Length: 60000000\r\nExpect: 100-continue\r\n\r\n",
                           "Transfer-Encoding: chunked\r\n\r\n3\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"}) {
    const std::string answer = answer_to(*server, head + rest);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 401 ")) << answer;
    EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos) << answer;
    EXPECT_TRUE(answer.ends_with("\r\n\r\nno key")) << answer;
  }
  Client client("127.0.0.1", server->port());
  EXPECT_EQ(client.post("/", std::string(8 << 20, 'x'))->status, 401) << "while the client still sends";
  EXPECT_EQ(client.get("/")->status, 401);
  EXPECT_EQ(client.post("/", "hello", {{"X-Key", "1"}})->body, "hello");
}

// Bodies that never end take no more than their part of the memory, and others go on.
TEST(ServerLimits, LimitsTheBytesOfAllBodies) {
  ServerOptions options;
  options.max_body_bytes = 64 << 10;
  options.max_bodies_bytes = 256 << 10;
  options.retry_after = std::chrono::seconds(3);
  std::atomic<bool> go_on{false};
  std::atomic<int> begun{0};
  const auto server = start_test_server(
      [&](const Request& request, ResponseWriter& writer) {
        ++begun;
        if (request.path == "/wait") eventually([&] { return go_on.load(); });
        writer.send(text_response(std::to_string(request.body.size())));
      },
      options);
  const std::string large(60 << 10, 'x');
  const std::string head = " HTTP/1.1\r\nHost: a\r\nContent-Length: 61440\r\n\r\n";
  std::vector<std::unique_ptr<TestSocket>> in_work;
  for (int i = 1; i <= 3; ++i) {  // a fourth would leave less than it takes
    in_work.push_back(std::make_unique<TestSocket>(server->port()));
    in_work.back()->send("POST /wait" + head + large);
    ASSERT_TRUE(eventually([&] { return begun == i; }));
  }
  std::vector<std::unique_ptr<TestSocket>> unfinished;
  for (int i = 0; i < 10; ++i) {
    unfinished.push_back(std::make_unique<TestSocket>(server->port()));
    unfinished.back()->send("POST /" + head + large.substr(1));
  }
  ASSERT_TRUE(eventually([&] { return server->stats().refused_busy == 10; }));
  Client client("127.0.0.1", server->port());
  EXPECT_EQ(client.post("/", std::string(20 << 10, 'x'))->body, "20480") << "others go on";
  const auto refused = client.post("/", large);
  ASSERT_TRUE(refused.ok()) << refused.error().message;
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(*refused->header("Retry-After"), "3");
  EXPECT_EQ(*refused->header("Connection"), "close");
  unfinished.clear();
  go_on = true;
  for (const auto& socket : in_work) EXPECT_TRUE(socket->read_until("\r\n\r\n61440").ends_with("61440"));
  for (int i = 0; i < 10; ++i) {  // all of it is given back
    EXPECT_TRUE(eventually([&] { return client.post("/", large)->status == 200; }));
  }
}

TEST(ServerLimits, ABodyThatWasLetGoCountsNoLonger) {
  ServerOptions options;
  options.max_body_bytes = 64 << 10;
  options.max_bodies_bytes = 128 << 10;
  std::atomic<bool> go_on{false};
  std::atomic<int> begun{0};
  const auto server = start_test_server(
      [&](Request& request, ResponseWriter& writer) {
        const size_t size = std::exchange(request.body, {}).size();
        writer.body_is_free();
        ++begun;
        eventually([&] { return go_on.load(); });
        writer.send(text_response(std::to_string(size)));
      },
      options);
  const std::string request =
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 61440\r\n\r\n" + std::string(60 << 10, 'x');
  std::vector<std::unique_ptr<TestSocket>> in_work;
  for (int i = 1; i <= 5; ++i) {
    in_work.push_back(std::make_unique<TestSocket>(server->port()));
    in_work.back()->send(request);
    ASSERT_TRUE(eventually([&] { return begun == i; })) << i;
  }
  go_on = true;
  for (const auto& socket : in_work) EXPECT_TRUE(socket->read_until("\r\n\r\n61440").ends_with("61440"));
  EXPECT_EQ(server->stats().refused_busy, 0);
}

TEST(ServerLimits, RefusedUploadsGetTheirAnswer) {
  // The client is still sending when it is refused; a reset must not destroy the answer.
  ServerOptions options;
  options.max_body_bytes = 1000;
  const auto server = start_test_server(ok, options);
  Client client("127.0.0.1", server->port());
  const auto response = client.post("/", std::string(8 << 20, 'x'));
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->status, 413);
}

TEST(ServerLimits, UsesTheErrorFormatter) {
  ServerOptions options;
  options.format_error = [](int status, std::string_view code, std::string_view) {
    Response response = text_response("my " + std::string(code), status);
    response.headers.emplace_back("X-Mine", "1");
    return response;
  };
  const auto server = start_test_server(ok, options);
  const std::string answer = answer_to(*server, "nonsense\r\n\r\n");
  EXPECT_NE(answer.find("X-Mine: 1\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("my bad_request")) << answer;
}

TEST(ServerLimits, TimesOutSlowHeads) {
  ServerOptions options;
  options.header_timeout = milliseconds(150);
  const auto server = start_test_server(ok, options);
  TestSocket socket(server->port());
  const auto begin = std::chrono::steady_clock::now();
  std::thread sender([&] {
    for (const char c : std::string("GET / HTTP/1.1\r\nHost: a")) {
      if (!socket.send({&c, 1})) break;
      std::this_thread::sleep_for(milliseconds(20));
    }
  });
  const std::string answer = socket.read_all();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(1500));
  sender.join();
  expect_error(answer, 408, "request_timeout");
  EXPECT_EQ(server->stats().timeouts, 1);
  TestSocket silent(server->port());
  EXPECT_EQ(silent.read_all(), "");
  EXPECT_TRUE(silent.ended());
}

TEST(ServerLimits, TimesOutSlowBodies) {
  ServerOptions options;
  options.body_timeout = milliseconds(150);
  options.min_bytes_per_second = 1000;
  const auto server = start_test_server(ok, options);
  TestSocket socket(server->port());
  socket.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
  std::atomic<bool> stop{false};
  std::thread sender([&] {
    while (!stop && socket.send("x")) std::this_thread::sleep_for(milliseconds(10));  // a tenth of the rate
  });
  const std::string answer = socket.read_until("}}", std::chrono::seconds(5));
  stop = true;
  sender.join();
  expect_error(answer, 408, "request_timeout");
}

TEST(ServerLimits, AllowsBodiesThatKeepTheRate) {
  ServerOptions options;
  options.body_timeout = milliseconds(150);
  options.min_bytes_per_second = 1000;
  const auto server = start_test_server(ok, options);
  TestSocket socket(server->port());
  socket.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\nConnection: close\r\n\r\n");
  for (int i = 0; i < 20; ++i) {  // 400 ms, longer than the timeout
    ASSERT_TRUE(socket.send(std::string(1000, 'x')));
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_TRUE(socket.read_all().starts_with("HTTP/1.1 200"));
}

TEST(ServerLimits, ClosesIdleConnections) {
  ServerOptions options;
  options.idle_timeout = milliseconds(100);
  const auto server = start_test_server(ok, options);
  TestSocket socket(server->port());
  socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n");  // with the stray line end of old clients
  EXPECT_TRUE(socket.read_all(std::chrono::seconds(5)).ends_with("ok"));
  EXPECT_TRUE(socket.ended());
  EXPECT_EQ(server->stats().timeouts, 0);
}

TEST(ServerLimits, SlowClientsDoNotHoldUpOthers) {
  const auto server = start_test_server(ok);
  std::vector<std::unique_ptr<TestSocket>> slow;
  for (int i = 0; i < 100; ++i) {
    slow.push_back(std::make_unique<TestSocket>(server->port()));
    slow.back()->send(i % 2 == 0 ? "GET / HT"
                                 : "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
  }
  Client client("127.0.0.1", server->port());
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 50; ++i) ASSERT_EQ(client.get("/")->status, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(5000));  // theirs end after 15 s and more
  // They cost no thread. (The last handler may still be on its way out when its answer is here.)
  for (int i = 0; i < 400 && server->stats().handlers_active > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(server->stats().handlers_active, 0);
}

// A server with two handlers, both at work until go_on().
class TwoAtWork {
 public:
  explicit TwoAtWork(ServerOptions options) {
    options.max_handlers = 2;
    server_ = start_test_server(
        [this](const Request& request, ResponseWriter& writer) {
          ++begun_;
          if (request.path == "/wait") eventually([&] { return go_on_.load(); });
          writer.send(text_response("ok"));
        },
        options);
    for (auto& socket : at_work_) {
      socket = std::make_unique<TestSocket>(server_->port());
      socket->send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    EXPECT_TRUE(eventually([&] { return begun_ == 2; }));
  }
  ~TwoAtWork() { go_on_ = true; }

  Server& server() { return *server_; }
  // Both get their answers.
  void go_on() {
    go_on_ = true;
    for (auto& socket : at_work_) EXPECT_TRUE(socket->read_until("ok").ends_with("ok"));
  }

 private:
  std::atomic<int> begun_{0};
  std::atomic<bool> go_on_{false};
  std::unique_ptr<Server> server_;
  std::array<std::unique_ptr<TestSocket>, 2> at_work_;
};

TEST(ServerLimits, RefusesRequestsAboveMaxHandlers) {
  ServerOptions options;
  options.retry_after = std::chrono::seconds(3);
  TwoAtWork busy(options);
  Client client("127.0.0.1", busy.server().port());
  for (int i = 0; i < 3; ++i) {
    const auto response = client.get("/");
    ASSERT_TRUE(response.ok());
    EXPECT_EQ(response->status, 503);
    EXPECT_EQ(*response->header("Retry-After"), "3");
    EXPECT_NE(response->body.find("server_busy"), std::string::npos);
  }
  EXPECT_EQ(busy.server().stats().refused_busy, 3);
  EXPECT_EQ(busy.server().stats().connections_total, 3);  // the refused client kept its connection
  busy.go_on();
  EXPECT_TRUE(eventually([&] { return client.get("/")->status == 200; }));
}

TEST(ServerLimits, ProbesHaveHandlersInReserve) {
  ServerOptions options;
  options.needs = [](const Request& head) { return RequestNeeds{.reserve = head.path == "/health"}; };
  TwoAtWork busy(options);
  Client client("127.0.0.1", busy.server().port());
  for (int i = 0; i < 50; ++i) ASSERT_EQ(client.get("/health")->status, 200) << i;
  EXPECT_EQ(client.get("/")->status, 503);
  busy.go_on();
}

// A client that has its answer and asks again is not refused because the last handler is still on its way
// out.
TEST(ServerLimits, TakesAsManyRequestsAsMaxHandlersWithoutAPause) {
  ServerOptions options;
  options.max_handlers = 2;
  const auto server = start_test_server(
      [](const Request& request, ResponseWriter& writer) {
        if (request.path == "/stream") {
          writer.begin_stream(200, "text/plain", {});
          writer.write("ok");
          writer.end();
        } else {
          writer.send(text_response("ok"));
        }
        std::this_thread::sleep_for(milliseconds(3));
      },
      options);
  std::vector<std::thread> clients;
  for (const char* path : {"/", "/stream"}) {
    clients.emplace_back([&server, path] {
      for (int i = 0; i < 50; ++i) {
        Client client("127.0.0.1", server->port());  // anew, or the server would wait for the handler's end
        const auto response = client.get(path);
        ASSERT_TRUE(response.ok()) << response.error().message;
        ASSERT_EQ(response->status, 200) << path << ' ' << i;
      }
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_EQ(server->stats().refused_busy, 0);
}

TEST(ServerLimits, RefusesConnectionsAboveTheLimit) {
  ServerOptions options;
  options.max_connections = 3;
  const auto server = start_test_server(ok, options);
  std::vector<std::unique_ptr<TestSocket>> open;
  for (int i = 0; i < 3; ++i) open.push_back(std::make_unique<TestSocket>(server->port()));
  ASSERT_TRUE(eventually([&] { return server->stats().connections_open == 3; }));
  const std::string answer =
      answer_to(*server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
  expect_error(answer, 503, "server_busy");
  EXPECT_NE(answer.find("Retry-After: 1\r\n"), std::string::npos);
  open.pop_back();
  ASSERT_TRUE(eventually([&] { return server->stats().connections_open < 3; }));
  EXPECT_EQ(Client("127.0.0.1", server->port()).get("/")->status, 200);
}

}  // namespace
}  // namespace fathom::http
