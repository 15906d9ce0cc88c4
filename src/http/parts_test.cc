// The parts that need no socket: parser, targets, heads, events, pace, pool; and the client's own manners.
#include <atomic>
#include <random>

#include "http/client.h"
#include "http/handler_pool.h"
#include "http/pace.h"
#include "http/request_parser.h"
#include "http/response_format.h"
#include "http/sse.h"
#include "http/test_socket.h"
#include "http/url.h"

namespace fathom::http {
namespace {

using std::chrono::milliseconds;

TEST(Url, DecodesAndEncodes) {
  EXPECT_EQ(percent_decode("a%20b%2Fc+d"), "a b/c+d");
  EXPECT_EQ(percent_decode("a+b", true), "a b");
  for (const char* wrong : {"%", "%1", "%zz", "abc%2"}) EXPECT_FALSE(percent_decode(wrong)) << wrong;
  std::string every;
  for (int i = 0; i < 256; ++i) every += static_cast<char>(i);
  EXPECT_EQ(percent_decode(percent_encode(every)), every);
}

TEST(Url, FindsQueryParameters) {
  EXPECT_EQ(find_query_param("a=1&b=2&a=3", "a"), "1");
  EXPECT_EQ(find_query_param("a=1&&b=x%20y", "b"), "x y");
  EXPECT_EQ(find_query_param("%61=1", "a"), "1");
  EXPECT_EQ(find_query_param("a", "a"), "");
  EXPECT_EQ(find_query_param("a=b=c", "a"), "b=c");
  EXPECT_FALSE(find_query_param("ab=1", "a"));
  EXPECT_FALSE(find_query_param("a=%zz", "a"));
  EXPECT_FALSE(find_query_param("", "a"));
}

TEST(Url, ParsesTargets) {
  const auto path = [](std::string_view target) {
    const auto parsed = parse_target(target);
    return parsed ? parsed->path + "|" + parsed->query : "wrong";
  };
  EXPECT_EQ(path("/a/b?c=d?e"), "/a/b|c=d?e");
  EXPECT_EQ(path("http://host:1/a?b"), "/a|b");
  EXPECT_EQ(path("HTTP://host"), "/|");
  EXPECT_EQ(path("http://host?q"), "/|q");
  EXPECT_EQ(path("/a#fragment?x"), "/a|");
  EXPECT_EQ(path("*"), "*|");
  for (const char* wrong : {"", "a", "?a", "http://", "http:///a", "/%0a", "/%7f", "/%", "ftp://h/a"}) {
    EXPECT_EQ(path(wrong), "wrong") << wrong;
  }
}

// Feeds `bytes` in pieces of `piece` bytes, as a connection does.
RequestParser::Status feed_in_pieces(RequestParser& parser, std::string_view bytes, size_t piece) {
  std::string buffer;
  auto status = RequestParser::Status::kNeedMore;
  while (!bytes.empty() && status == RequestParser::Status::kNeedMore) {
    buffer += bytes.substr(0, piece);
    bytes.remove_prefix(std::min(piece, bytes.size()));
    do {
      size_t used = 0;
      status = parser.feed(buffer, &used);
      buffer.erase(0, used);
    } while (status == RequestParser::Status::kHead);
  }
  return status;
}

TEST(RequestParser, GivesTheSameForEveryCut) {
  const std::string plain =
      "\r\nPOST /a%41?q HTTP/1.1\r\nHost: h\r\nX-A:  b  \r\nContent-Length: 11\r\n\r\nhello world";
  const std::string chunked =
      "POST /a%41?q HTTP/1.1\r\nHost: h\r\nX-A: b\r\nTransfer-Encoding: Chunked\r\n\r\n"
      "3\r\nhel\r\n008;x=\"y\"\r\nlo world\r\n0\r\nHost: evil\r\n\r\n";
  for (const std::string& bytes : {plain, chunked}) {
    for (size_t piece = 1; piece <= bytes.size(); ++piece) {
      RequestParser parser({1024, 1024});
      ASSERT_EQ(feed_in_pieces(parser, bytes, piece), RequestParser::Status::kComplete)
          << piece << " " << parser.error().message;
      EXPECT_TRUE(parser.keep_alive());
      const Request request = parser.take();
      EXPECT_EQ(request.method, "POST");
      EXPECT_EQ(request.path, "/aA");
      EXPECT_EQ(request.query, "q");
      EXPECT_EQ(request.body, "hello world");
      EXPECT_EQ(*request.header("x-a"), "b");
      EXPECT_EQ(*request.header("HOST"), "h");
      EXPECT_EQ(request.headers.size(), 3u);  // trailers are not headers
      EXPECT_FALSE(parser.begun());
    }
  }
}

TEST(RequestParser, ReadsAnEmptyChunkedBodyInPieces) {
  // Beast's parser asserts that it is not asked again with "0\r\n" and a byte.
  const std::string bytes = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
  for (size_t piece = 1; piece < 6; ++piece) {
    RequestParser parser({1024, 1024});
    ASSERT_EQ(feed_in_pieces(parser, bytes, piece), RequestParser::Status::kComplete) << piece;
    EXPECT_EQ(parser.take().body, "");
  }
}

TEST(RequestParser, CountsTheWholeHead) {
  const std::string start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
  for (const size_t size : {199, 200, 201, 250}) {
    const std::string bytes = start + std::string(size - start.size() - 4, 'x') + "\r\n\r\n";
    ASSERT_EQ(bytes.size(), size);
    for (const size_t piece : {size_t{1}, size_t{50}, size}) {
      RequestParser parser({200, 1024});
      const auto status = feed_in_pieces(parser, bytes, piece);
      EXPECT_EQ(status, size <= 200 ? RequestParser::Status::kComplete : RequestParser::Status::kError);
      EXPECT_EQ(parser.error().status, size <= 200 ? 400 : 431);  // 400: the value of no error
    }
  }
}

TEST(RequestParser, KnowsHowTheConnectionGoesOn) {
  const auto keep_alive = [](const std::string& bytes) {
    RequestParser parser({1024, 1024});
    EXPECT_EQ(feed_in_pieces(parser, bytes, bytes.size()), RequestParser::Status::kComplete);
    return parser.keep_alive();
  };
  EXPECT_TRUE(keep_alive("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_FALSE(keep_alive("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
  EXPECT_FALSE(keep_alive("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keep_alive("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

TEST(Sse, WritesAndReadsBack) {
  EXPECT_EQ(sse_event("x"), "data: x\n\n");
  EXPECT_EQ(sse_event(""), "data: \n\n");
  EXPECT_EQ(sse_event("done", "a\nb"), "event: done\ndata: a\ndata: b\n\n");
  EXPECT_EQ(sse_comment("ping\npong"), ": ping pong\n\n");
  const std::string texts[] = {"plain", "",         "a\nb",    "\n",  "\n\n",
                               " lead", "a\n\nb\n", "data: x", ": y", "\xC3\xA4"};
  std::string stream;
  for (const std::string& text : texts) stream += sse_event(text) + sse_comment("c");
  for (size_t piece = 1; piece < 20; ++piece) {
    SseParser parser;
    std::vector<std::string> got;
    for (size_t at = 0; at < stream.size(); at += piece) {
      ASSERT_TRUE(parser.feed(std::string_view(stream).substr(at, piece),
                              [&](const SseEvent& event) { got.push_back(event.data); }));
    }
    EXPECT_EQ(got, std::vector<std::string>(std::begin(texts), std::end(texts))) << piece;
  }
}

TEST(Sse, ReadsWhatOthersWrite) {
  const auto read = [](std::string_view bytes) {
    std::string got;
    SseParser parser;
    EXPECT_TRUE(parser.feed(
        bytes, [&](const SseEvent& e) { got += "[" + e.name + "|" + e.data + "|" + e.id + "]"; }));
    return got;
  };
  EXPECT_EQ(read("\xEF\xBB\xBF"
                 "data:x\r\n\r\n"),
            "[message|x|]");
  EXPECT_EQ(read("data: a\rdata: b\r\r"), "[message|a\nb|]");
  EXPECT_EQ(read("event: e\nid: 7\ndata\n\ndata: z\n\n"), "[e||7][message|z|7]");
  EXPECT_EQ(read("event: e\n\ndata: q\n\n"), "[message|q|]");
  EXPECT_EQ(read("retry: 5\nfoo: bar\ndata: q\n\ndata: unfinished\n"), "[message|q|]");
}

TEST(Sse, RefusesEventsWithoutEnd) {
  SseParser parser(1000);
  const auto ignore = [](const SseEvent&) {};
  EXPECT_TRUE(parser.feed("data: " + std::string(900, 'x') + "\n\n", ignore));
  EXPECT_TRUE(parser.feed("data: " + std::string(900, 'x') + "\n", ignore));
  EXPECT_FALSE(parser.feed("data: " + std::string(900, 'x') + "\n", ignore));
  EXPECT_FALSE(parser.feed("\n", ignore));
}

TEST(ResponseFormat, FramesByVersionAndStatus) {
  const auto head = [](int status, std::optional<size_t> length, bool http_1_0, bool keep_alive) {
    Framing framing;
    framing.http_1_0 = http_1_0;
    return format_head(status, "text/plain", {}, length, framing, keep_alive);
  };
  EXPECT_NE(head(200, 5, false, true).find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(head(200, 5, false, true).find("Connection:"), std::string::npos);
  EXPECT_NE(head(200, {}, false, true).find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(head(200, {}, true, false).find("Transfer-Encoding"), std::string::npos);
  EXPECT_EQ(head(204, 0, false, true).find("Content-Length"), std::string::npos);
  EXPECT_NE(head(200, 0, false, false).find("Connection: close\r\n"), std::string::npos);
  EXPECT_NE(head(200, 0, true, true).find("Connection: keep-alive\r\n"), std::string::npos);
  EXPECT_EQ(json_error(400, "c", "a \"b\"\n").body,
            R"({"error":{"message":"a \"b\"\u000a","type":"invalid_request_error","code":"c"}})");
}

TEST(Pace, AllowsPausesAndALowRateButNotBoth) {
  const Pace::Clock::time_point start{};
  const auto at = [&](int ms) { return start + milliseconds(ms); };
  Pace pace(milliseconds(1000), 100, start);
  EXPECT_EQ(pace.deadline(), at(1000));
  pace.progress(50, at(900));
  EXPECT_EQ(pace.deadline(), at(1500));  // 50 bytes earn half a second
  pace.progress(100'000, at(1200));
  EXPECT_EQ(pace.deadline(), at(2200));  // much at once does not earn a long pause
  pace.progress(100'000, at(2100));
  EXPECT_EQ(pace.deadline(), at(2200));  // no progress
}

TEST(HandlerPool, GrowsToItsBoundAndShrinks) {
  HandlerPool pool(3, 0, milliseconds(50));
  std::atomic<bool> go_on{false};
  std::atomic<int> done{0};
  const auto task = [&](HandlerPool::Turn&) {
    eventually([&] { return go_on.load(); });
    ++done;
  };
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool.submit(task));
  EXPECT_FALSE(pool.submit(task));
  EXPECT_EQ(pool.threads(), 3);
  go_on = true;
  EXPECT_TRUE(eventually([&] { return pool.active() == 0; }));
  EXPECT_EQ(done, 3);
  EXPECT_TRUE(eventually([&] { return pool.threads() == 0; }));
  EXPECT_TRUE(pool.submit(task));
  pool.stop();
  EXPECT_EQ(done, 4);
  EXPECT_FALSE(pool.submit(task));
}

TEST(HandlerPool, KeepsOneThreadForOneTaskAtATime) {
  HandlerPool pool(100, 0, std::chrono::seconds(10));
  for (int i = 0; i < 200; ++i) {
    std::atomic<bool> done{false};
    EXPECT_TRUE(pool.submit([&](HandlerPool::Turn&) { done = true; }));
    ASSERT_TRUE(eventually([&] { return done && pool.active() == 0; }));
  }
  EXPECT_EQ(pool.threads(), 1);
}

TEST(HandlerPool, HasAReserve) {
  HandlerPool pool(2, 1, std::chrono::seconds(10));
  std::atomic<bool> go_on{false};
  const auto wait = [&](HandlerPool::Turn&) { eventually([&] { return go_on.load(); }); };
  EXPECT_TRUE(pool.submit(wait, true));
  EXPECT_TRUE(pool.submit(wait));
  EXPECT_TRUE(pool.submit(wait)) << "one in the reserve takes no place of the others";
  EXPECT_FALSE(pool.submit(wait));
  EXPECT_FALSE(pool.submit(wait, true));
  go_on = true;
  ASSERT_TRUE(eventually([&] { return pool.active() == 0; }));
  for (int round = 0; round < 3; ++round) {  // every place is free again
    go_on = false;
    EXPECT_TRUE(pool.submit(wait));
    EXPECT_TRUE(pool.submit(wait));
    EXPECT_FALSE(pool.submit(wait));
    EXPECT_TRUE(pool.submit(wait, true));
    EXPECT_FALSE(pool.submit(wait, true));
    go_on = true;
    ASSERT_TRUE(eventually([&] { return pool.active() == 0; }));
  }
}

TEST(HandlerPool, ATaskWhoseTurnEndedMakesRoom) {
  HandlerPool pool(1, 0, std::chrono::seconds(10));
  std::atomic<bool> answer{false}, answered{false}, leave{false}, second_ran{false};
  EXPECT_TRUE(pool.submit([&](HandlerPool::Turn& turn) {
    eventually([&] { return answer.load(); });
    turn.end();
    turn.end();
    answered = true;
    eventually([&] { return leave.load(); });
  }));
  EXPECT_FALSE(pool.submit([](HandlerPool::Turn&) {}));
  answer = true;
  ASSERT_TRUE(eventually([&] { return answered.load(); }));
  EXPECT_TRUE(pool.submit([&](HandlerPool::Turn&) { second_ran = true; }));
  EXPECT_FALSE(pool.submit([](HandlerPool::Turn&) {}));  // room for one, in spite of two ends
  EXPECT_EQ(pool.threads(), 1);
  EXPECT_FALSE(second_ran);  // it waits for the thread
  leave = true;
  pool.stop();  // runs what was accepted
  EXPECT_TRUE(second_ran);
}

TEST(Client, ReadsUrls) {
  EXPECT_TRUE(Client::from_url("http://localhost:8000/v1").ok());
  EXPECT_TRUE(Client::from_url("http://[::1]:8000").ok());
  for (const char* wrong : {"", "localhost:1", "https://a", "http://", "http://a:b", "http://a:0",
                            "http://a:99999", "http://[::1"}) {
    EXPECT_FALSE(Client::from_url(wrong).ok()) << wrong;
  }
}

TEST(Client, ReconnectsWhenTheServerClosed) {
  ServerOptions options;
  options.idle_timeout = milliseconds(20);
  const auto server =
      start_test_server([](const Request&, ResponseWriter& w) { w.send(text_response("ok")); }, options);
  Client client("127.0.0.1", server->port());
  for (int i = 0; i < 3; ++i) {
    const auto response = client.get("/");
    ASSERT_TRUE(response.ok()) << response.error().message;
    ASSERT_TRUE(eventually([&] { return server->stats().connections_open == 0; }));
  }
  EXPECT_EQ(server->stats().connections_total, 3);
}

TEST(Client, TimesOutAndNamesTheServer) {
  std::atomic<bool> go_on{false};
  const auto server =
      start_test_server([&](const Request&, ResponseWriter&) { eventually([&] { return go_on.load(); }); });
  ClientOptions options;
  options.read_timeout = milliseconds(50);
  Client client("127.0.0.1", server->port(), options);
  const auto response = client.get("/x");
  go_on = true;
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(response.error().message.find("127.0.0.1:" + std::to_string(server->port()) + "/x"),
            std::string::npos);
}

TEST(Client, NoticesACutStream) {
  const auto server = start_test_server([](const Request&, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/event-stream"));
    EXPECT_TRUE(writer.write(sse_event("one")));
    throw std::runtime_error("broken");
  });
  Client client("127.0.0.1", server->port());
  int events = 0;
  const auto response =
      client.stream_events("GET", "/", {}, {}, [&](const SseEvent&) { return ++events > 0; });
  EXPECT_EQ(events, 1);
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().code, ErrorCode::kDataLoss);
}

TEST(Client, StopsAStreamWhenAsked) {
  std::atomic<bool> gone{false};
  const auto server = start_test_server([&](const Request&, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/event-stream"));
    while (writer.write(sse_event("tick"))) std::this_thread::sleep_for(milliseconds(1));
    gone = true;
  });
  Client client("127.0.0.1", server->port());
  int events = 0;
  const auto response =
      client.stream_events("GET", "/", {}, {}, [&](const SseEvent&) { return ++events < 3; });
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(events, 3);
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
}

}  // namespace
}  // namespace fathom::http
