// How a server starts, carries many streams at once, drains and ends.
#include <atomic>
#include <memory>
#include <vector>

#include "http/client.h"
#include "http/server.h"
#include "http/sse.h"
#include "http/test_socket.h"

namespace fathom::http {
namespace {

using std::chrono::milliseconds;

void echo(const Request& request, ResponseWriter& writer) {
  writer.send(text_response(request.method + " " + request.path + "|" + request.query + "|" + request.body));
}

TEST(ServerLife, SaysWhichPortIsTaken) {
  const auto server = start_test_server(echo);
  ServerOptions options;
  options.port = server->port();
  const auto second = Server::start(options, echo);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find("127.0.0.1:" + std::to_string(options.port)), std::string::npos);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos);
  options.host = "nowhere.invalid";
  const auto unknown = Server::start(options, echo);
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().message.find("nowhere.invalid"), std::string::npos);
  options.host = "192.0.2.1";
  EXPECT_FALSE(Server::start(options, echo).ok());
}

TEST(ServerLife, ListensOnAPortJustUsed) {
  uint16_t port = 0;
  {
    const auto server = start_test_server(echo);
    port = server->port();
    Client client("127.0.0.1", port);
    ASSERT_TRUE(client.get("/").ok());
  }  // the server closed first: the connection is in TIME_WAIT
  ServerOptions options;
  options.port = port;
  const auto again = Server::start(options, echo);
  ASSERT_TRUE(again.ok()) << again.error().message;
}

TEST(ServerLife, ListensOnIPv6) {
  for (const char* host : {"::1", "[::1]", "::"}) {
    ServerOptions options;
    options.host = host;
    options.port = 0;
    const auto server = Server::start(options, echo);
    if (!server.ok() && server.error().message.find("not supported") != std::string::npos)
      GTEST_SKIP() << "no IPv6";
    ASSERT_TRUE(server.ok()) << server.error().message;
    Client client("::1", (*server)->port());
    const auto response = client.get("/");
    ASSERT_TRUE(response.ok()) << response.error().message;
    if (std::string_view(host) != "::") continue;
    EXPECT_TRUE(Client("127.0.0.1", (*server)->port()).get("/").ok());
  }
}

TEST(ServerLife, StreamsTo200ClientsAtOnce) {
  constexpr int kStreams = 200;
  constexpr int kEvents = 50;
  const auto server = start_test_server([](const Request& request, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/event-stream"));
    for (int i = 0; i < kEvents; ++i) {
      EXPECT_TRUE(writer.write(sse_event(request.path + " " + std::to_string(i))));
      if (i % 10 == 0) std::this_thread::sleep_for(milliseconds(2));
    }
  });
  std::vector<std::unique_ptr<TestSocket>> sockets;
  for (int i = 0; i < kStreams; ++i) {
    sockets.push_back(std::make_unique<TestSocket>(server->port()));
    sockets.back()->send("GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  for (int i = 0; i < kStreams; ++i) {
    const std::string all = sockets[static_cast<size_t>(i)]->read_until("\r\n0\r\n\r\n");
    EXPECT_EQ(count_of(all, "data: /" + std::to_string(i) + " "), kEvents);
  }
  EXPECT_EQ(server->stats().requests_total, kStreams);
}

TEST(ServerLife, DrainWaitsForRequestsInWork) {
  std::atomic<bool> go_on{false};
  std::atomic<int> begun{0};
  const auto server = start_test_server([&](const Request&, ResponseWriter& writer) {
    ++begun;
    while (!go_on) std::this_thread::sleep_for(milliseconds(1));
    writer.send(text_response("done"));
  });
  TestSocket idle(server->port());
  TestSocket busy(server->port());
  busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return begun == 1; }));
  EXPECT_FALSE(server->drain(milliseconds(30)));
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_TRUE(idle.ended());
  EXPECT_FALSE(Client("127.0.0.1", server->port()).get("/").ok());  // nobody listens any more
  go_on = true;
  EXPECT_TRUE(server->drain(std::chrono::seconds(10)));
  const std::string all = busy.read_all();
  EXPECT_TRUE(all.ends_with("done"));
  EXPECT_NE(all.find("Connection: close"), std::string::npos);
}

TEST(ServerLife, EndsWithConnectionsOpen) {
  std::atomic<int> begun{0};
  std::atomic<int> ended{0};
  auto server = start_test_server([&](const Request&, ResponseWriter& writer) {
    EXPECT_TRUE(writer.begin_stream(200, "text/plain"));
    ++begun;
    while (!writer.client_gone()) std::this_thread::sleep_for(milliseconds(1));
    EXPECT_FALSE(writer.write("x"));
    ++ended;
  });
  std::vector<std::unique_ptr<TestSocket>> sockets;
  for (int i = 0; i < 12; ++i) {
    sockets.push_back(std::make_unique<TestSocket>(server->port()));
    if (i % 3 == 1) sockets.back()->send("GET / HT");
    if (i % 3 == 2) sockets.back()->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  ASSERT_TRUE(eventually([&] { return begun == 4; }));
  server.reset();
  EXPECT_EQ(ended, 4);
  for (const auto& socket : sockets) {
    socket->read_all();
    EXPECT_TRUE(socket->ended());
  }
}

}  // namespace
}  // namespace fathom::http
