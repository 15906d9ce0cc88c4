// Ordinary requests: answers, streams, keep-alive, pipelining, CORS, handlers that fail.
#include "http/server.h"

#include <atomic>
#include <condition_variable>
#include <stdexcept>

#include "http/client.h"
#include "http/test_socket.h"

namespace fathom::http {
namespace {

using std::chrono::milliseconds;

void echo(const Request& request, ResponseWriter& writer) {
  writer.send(text_response(request.method + " " + request.path + "|" + request.query + "|" + request.body));
}

TEST(Server, AnswersAndKeepsTheConnection) {
  const auto server = start_test_server(echo);
  Client client("127.0.0.1", server->port());
  for (int i = 0; i < 20; ++i) {
    const auto response = client.post("/a%20b?x=" + std::to_string(i), "body");
    ASSERT_TRUE(response.ok()) << response.error().message;
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->body, "POST /a b|x=" + std::to_string(i) + "|body");
    EXPECT_EQ(*response->header("content-type"), "text/plain");
    EXPECT_NE(response->header("Date"), nullptr);
  }
  EXPECT_EQ(server->stats().connections_total, 1);
  EXPECT_EQ(server->stats().requests_total, 20);
}

TEST(Server, GivesTheHandlerTheWholeRequest) {
  const auto server = start_test_server([](const Request& request, ResponseWriter& writer) {
    const bool local = request.remote.starts_with("127.0.0.1:");
    const std::string* header = request.header("x-thing");
    writer.send(text_response(std::string(local ? "local " : "? ") + (header ? *header : "none") + " " +
                              request.query_param("q").value_or("absent") + " " +
                              request.query_param("flag").value_or("absent") + " " +
                              request.query_param("other").value_or("absent")));
  });
  Client client("127.0.0.1", server->port());
  const auto response = client.get("/?q=a%2Bb+c&flag", {{"X-Thing", "7"}});
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->body, "local 7 a+b c  absent");
}

TEST(Server, HeadHasTheLengthButNoBody) {
  const auto server = start_test_server(echo);
  TestSocket socket(server->port());
  socket.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const std::string all = socket.read_all();
  EXPECT_NE(all.find("Content-Length: 9"), std::string::npos) << all;
  EXPECT_EQ(all.find("HEAD /x||"), std::string::npos);
  EXPECT_TRUE(all.ends_with("\r\n\r\nGET /y||")) << all;
}

TEST(Server, HeadOfAStreamHasNoChunks) {
  const auto server = start_test_server([](const Request&, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/event-stream"));
    EXPECT_TRUE(writer.write("x"));
  });
  TestSocket socket(server->port());
  socket.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(socket.read_all().ends_with("\r\n\r\n"));
}

TEST(Server, SpeaksHttp10) {
  const auto server = start_test_server(echo);
  TestSocket socket(server->port());
  socket.send("GET /x HTTP/1.0\r\n\r\n");
  const std::string all = socket.read_all();
  EXPECT_TRUE(all.ends_with("GET /x||")) << all;
  EXPECT_TRUE(socket.ended());

  TestSocket kept(server->port());
  kept.send("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_NE(kept.read_until("GET /x||").find("Connection: keep-alive"), std::string::npos);
  kept.send("GET /z HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(kept.read_all().ends_with("GET /z||"));
}

TEST(Server, StreamsToHttp10WithoutChunks) {
  const auto server = start_test_server([](const Request&, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/plain"));
    EXPECT_TRUE(writer.write("one "));
    EXPECT_TRUE(writer.write("two"));
    writer.end();
  });
  TestSocket socket(server->port());
  socket.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string all = socket.read_all();
  EXPECT_TRUE(all.ends_with("\r\n\r\none two")) << all;
  EXPECT_EQ(all.find("chunked"), std::string::npos);
}

TEST(Server, StreamsChunksAtOnce) {
  std::mutex mutex;
  std::condition_variable changed;
  int allowed = 0;
  const auto server = start_test_server([&](const Request&, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/event-stream", {{"X-Id", "9"}}));
    for (int i = 1; i <= 3; ++i) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return allowed >= i; });
      EXPECT_TRUE(writer.write("event" + std::to_string(i)));
      EXPECT_TRUE(writer.write(""));  // must not end the stream
    }
    writer.end();
  });
  TestSocket socket(server->port());
  socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto allow = [&](int n) {
    std::lock_guard lock(mutex);
    allowed = n;
    changed.notify_all();
  };
  // Each part is there before the handler may go on: the head first, then event by event.
  EXPECT_NE(socket.read_until("\r\n\r\n").find("X-Id: 9\r\n"), std::string::npos);
  allow(1);
  EXPECT_EQ(socket.read_until("event1\r\n"), "6\r\nevent1\r\n");
  allow(2);
  EXPECT_EQ(socket.read_until("event2\r\n"), "6\r\nevent2\r\n");
  allow(3);
  EXPECT_EQ(socket.read_until("0\r\n\r\n"), "6\r\nevent3\r\n0\r\n\r\n");
  // The connection is good for another request.
  socket.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(socket.read_until("\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  std::atomic<int> together{0};
  const auto server = start_test_server([&](const Request& request, ResponseWriter& writer) {
    EXPECT_EQ(++together, 1);  // one request of a connection at a time
    if (request.path == "/0") std::this_thread::sleep_for(milliseconds(30));
    --together;
    echo(request, writer);
  });
  TestSocket socket(server->port());
  std::string requests;
  std::string expected;
  for (int i = 0; i < 30; ++i) {
    const std::string path = "/" + std::to_string(i);
    requests += "POST " + path + " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    expected += "POST " + path + "||abc;";
  }
  requests += "GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  socket.send(requests);
  const std::string all = socket.read_all();
  std::string got;
  for (size_t at = all.find("\r\n\r\n"); at != std::string::npos; at = all.find("\r\n\r\n", at)) {
    at += 4;
    got += all.substr(at, all.find("HTTP/1.1", at) - at) + ";";
  }
  EXPECT_EQ(got, expected + "GET /end||;");
}

TEST(Server, PipelinesMoreThanItsReadAheadHolds) {
  ServerOptions options;
  options.max_header_bytes = 4096;
  std::atomic<int> handled{0};
  const auto server = start_test_server(
      [&](const Request& request, ResponseWriter& writer) {
        if (handled++ == 0) std::this_thread::sleep_for(milliseconds(50));
        EXPECT_EQ(request.body.size(), 3000u);
        writer.send(text_response("ok"));
      },
      options);
  TestSocket socket(server->port());
  std::string requests;
  for (int i = 0; i < 40; ++i) {
    requests += "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n" + std::string(3000, 'x');
  }
  socket.send(requests);
  socket.shutdown_write();
  EXPECT_EQ(count_of(socket.read_all(), "200 OK"), 40);
  EXPECT_EQ(handled, 40);
}

TEST(Server, ReadsChunkedBodies) {
  const auto server = start_test_server(echo);
  TestSocket socket(server->port());
  socket.send(
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
      "5;ext=1\r\nhello\r\n");
  std::this_thread::sleep_for(milliseconds(5));
  socket.send("6\r\n world\r\n0\r\nTrailer: x\r\n\r\n");
  EXPECT_TRUE(socket.read_all().ends_with("POST /||hello world"));
}

TEST(Server, SaysContinueBeforeTheBody) {
  const auto server = start_test_server(echo);
  TestSocket socket(server->port());
  socket.send(
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(socket.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  socket.send("hi");
  EXPECT_TRUE(socket.read_all().ends_with("POST /||hi"));
}

TEST(Server, HandsOnOptionsWithoutCors) {
  const auto server = start_test_server(echo);
  Client client("127.0.0.1", server->port());
  const auto response = client.request("OPTIONS", "/x", {}, {{"Origin", "http://a"}});
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->body, "OPTIONS /x||");
  EXPECT_EQ(response->header("Access-Control-Allow-Origin"), nullptr);
  const auto all = client.request("OPTIONS", "*");
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->body, "OPTIONS *||");
}

TEST(Server, AnswersCorsForAllowedOriginsOnly) {
  ServerOptions options;
  options.cors_origins = {"http://good.example"};
  const auto server = start_test_server(echo, options);
  Client client("127.0.0.1", server->port());
  const auto preflight = client.request("OPTIONS", "/x", {},
                                        {{"Origin", "http://good.example"},
                                         {"Access-Control-Request-Method", "POST"},
                                         {"Access-Control-Request-Headers", "authorization, content-type"}});
  ASSERT_TRUE(preflight.ok());
  EXPECT_EQ(preflight->status, 204);
  EXPECT_EQ(*preflight->header("Access-Control-Allow-Origin"), "http://good.example");
  EXPECT_EQ(*preflight->header("Access-Control-Allow-Headers"), "authorization, content-type");
  EXPECT_EQ(preflight->header("Content-Length"), nullptr);
  const auto good = client.get("/", {{"Origin", "http://good.example"}});
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(*good->header("Access-Control-Allow-Origin"), "http://good.example");
  EXPECT_EQ(*good->header("Vary"), "Origin");
  const auto bad = client.get("/", {{"Origin", "http://bad.example"}});
  ASSERT_TRUE(bad.ok());
  EXPECT_EQ(bad->header("Access-Control-Allow-Origin"), nullptr);
}

TEST(Server, TurnsExceptionsInto500) {
  const auto server = start_test_server([](const Request& request, ResponseWriter& writer) {
    if (request.path == "/std") throw std::runtime_error("secret detail");
    if (request.path == "/int") throw 7;
    if (request.path == "/none") return;
    echo(request, writer);
  });
  Client client("127.0.0.1", server->port());
  for (const char* path : {"/std", "/int", "/none"}) {
    const auto response = client.get(path);
    ASSERT_TRUE(response.ok()) << path;
    EXPECT_EQ(response->status, 500) << path;
    EXPECT_EQ(response->body.find("secret"), std::string::npos);
    EXPECT_NE(response->body.find(R"("code":"internal_error")"), std::string::npos) << response->body;
  }
  EXPECT_EQ(client.get("/fine")->status, 200);
}

TEST(Server, CutsAStreamWhoseHandlerThrows) {
  const auto server = start_test_server([](const Request&, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/plain"));
    EXPECT_TRUE(writer.write("half"));
    throw std::runtime_error("broken");
  });
  TestSocket socket(server->port());
  socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const std::string all = socket.read_all();
  EXPECT_TRUE(all.ends_with("4\r\nhalf\r\n")) << all;  // no last chunk
  EXPECT_TRUE(socket.ended());
}

TEST(Server, KeepsHeaderInjectionOut) {
  const auto server = start_test_server([](const Request&, ResponseWriter& writer) {
    Response response = text_response("ok");
    response.headers.emplace_back("X-Echo", "a\r\nSet-Cookie: b\r\n\r\n<script>");
    writer.send(std::move(response));
  });
  Client client("127.0.0.1", server->port());
  const auto response = client.get("/");
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->header("Set-Cookie"), nullptr);
  EXPECT_EQ(response->body, "ok");
}

TEST(Server, SendsLargeAnswersWhole) {
  std::string large(20 << 20, 'x');
  for (size_t i = 0; i < large.size(); i += 1000) large[i] = static_cast<char>('a' + i / 1000 % 26);
  const auto server = start_test_server([&](const Request& request, ResponseWriter& writer) {
    if (request.path == "/whole") return writer.send(text_response(large));
    EXPECT_TRUE(writer.begin_stream(200, "text/plain"));
    EXPECT_TRUE(writer.write(large));
  });
  Client client("127.0.0.1", server->port());
  for (const char* path : {"/whole", "/stream", "/whole"}) {
    const auto response = client.get(path);
    ASSERT_TRUE(response.ok()) << response.error().message;
    EXPECT_TRUE(response->body == large) << path;
  }
}

}  // namespace
}  // namespace fathom::http
