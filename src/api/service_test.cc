// Routing, keys, health, cancelling and vanished clients.
#include "api/service.h"

#include <malloc.h>

#include <chrono>
#include <thread>

#include "api/fixture.h"
#include "api/health.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// Runs `handle` on a thread of its own, as the HTTP server does.
class Call {
 public:
  Call(Desk& desk, const std::string& path, const std::string& body) : desk_(desk) {
    request_.method = "POST";
    request_.path = path;
    request_.body = body;
  }
  ~Call() { join(); }
  void start() {
    thread_ = std::thread([this] { desk_.service.handle(request_, writer); });
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

  FakeWriter writer;

 private:
  Desk& desk_;
  http::Request request_;
  std::thread thread_;
};

template <class Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

TEST(Service, RoutesAndRefusesByPathAndMethod) {
  Desk desk(says("x"));
  EXPECT_EQ(desk.call("GET", "/health").status, 200);
  EXPECT_EQ(desk.call("HEAD", "/health").status, 200);
  EXPECT_EQ(desk.call("GET", "/ping").status, 200);
  EXPECT_EQ(desk.call("GET", "/nothing").status, 404);
  EXPECT_EQ(desk.call("GET", kChat).status, 405);
  EXPECT_EQ(desk.call("DELETE", "/v1/models").status, 405);
  EXPECT_EQ(desk.call("PUT", "/generate", R"({"input_ids": [5]})").status, 200);
  EXPECT_EQ(ordered_json::parse(desk.call("GET", "/nothing").body)["error"]["code"], "not_found");
}

TEST(Service, TellsOfModelServerAndLoad) {
  ServiceOptions options;
  options.server_info = [] { return ordered_json({{"port", 30000}}); };
  Desk desk(says("x"), options);
  SchedulerStats stats;
  stats.total_tokens = 1000;
  stats.used_tokens = 250;
  stats.steps = 7;
  desk.sink.set_stats(stats);
  const auto get = [&](const char* path) { return ordered_json::parse(desk.call("GET", path).body); };
  EXPECT_EQ(get("/v1/models")["data"][0]["id"], "demo");
  EXPECT_EQ(get("/v1/models")["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(get("/v1/models/demo")["object"], "model");
  EXPECT_EQ(get("/v1/models/other")["error"]["code"], "model_not_found");
  EXPECT_EQ(get("/model_info")["model_type"], "deepseek_v3");
  EXPECT_EQ(get("/get_model_info"), get("/model_info"));
  EXPECT_EQ(get("/server_info")["port"], 30000);
  EXPECT_EQ(get("/server_info")["internal_states"][0]["steps"], 7);
  EXPECT_EQ(get("/v1/loads")["loads"][0]["token_usage"], 0.25);
}

TEST(Service, AnUnknownModelIsA404) {
  Desk desk(says("x"));
  for (const char* path : {kChat, kCompletions, "/generate", "/tokenize"}) {
    const bool chat = std::string(path) == kChat;
    const std::string prompt = chat                               ? std::string(kHello)
                               : std::string(path) == "/generate" ? R"("text": "a")"
                                                                  : R"("prompt": "a")";
    const ordered_json answer = desk.json(path, R"({"model": "gpt-9", )" + prompt + "}", 404);
    EXPECT_EQ(answer["error"]["code"], "model_not_found");
    EXPECT_EQ(answer["error"]["message"], "The model 'gpt-9' does not exist");
    EXPECT_EQ(answer["error"]["param"], "model");
  }
}

TEST(Service, AsksForTheKeyOnEveryRouteButTheProbes) {
  ServiceOptions options;
  options.api_key = "secret";
  Desk desk(says("x"), options);
  for (const char* path : {"/health", "/ready", "/ping"}) EXPECT_EQ(desk.call("GET", path).status, 200);
  for (const char* path : {"/v1/models", "/server_info", "/flush_cache", "/health_generate", "/nothing"}) {
    EXPECT_EQ(desk.call("GET", path).status, 401) << path;
  }
  for (const char* wrong :
       {"Bearer secreT", "Bearer secre", "Bearer secretsecret", "Bearer ", "secret", "Basic secret"}) {
    EXPECT_EQ(desk.call("GET", "/v1/models", "", {{"Authorization", wrong}}).status, 401) << wrong;
  }
  EXPECT_EQ(desk.call("GET", "/v1/models", "", {{"authorization", "bearer secret"}}).status, 200);
}

// Told from a request's head, before its body is read.
TEST(Service, KnowsWhatARequestNeeds) {
  ServiceOptions options;
  options.api_key = "secret";
  Desk desk(says("x"), options);
  const auto needs = [&](const char* method, const char* path, const char* key) {
    http::Request head;
    head.method = method;
    head.path = path;
    if (*key != 0) head.headers.emplace_back("Authorization", std::string("Bearer ") + key);
    const http::RequestNeeds needs = desk.service.needs(head);
    return std::string(needs.body ? "body" : "") + (needs.reserve ? " reserve" : "");
  };
  EXPECT_EQ(needs("POST", kChat, "secret"), "body");
  EXPECT_EQ(needs("POST", kChat, "wrong"), " reserve") << "refused at once";
  EXPECT_EQ(needs("POST", kChat, ""), " reserve");
  EXPECT_EQ(needs("POST", "/nothing", ""), " reserve");
  EXPECT_EQ(needs("POST", "/tokenize", "secret"), "body") << "it may take long";
  for (const char* path : {"/health", "/ready", "/ping"}) EXPECT_EQ(needs("POST", path, ""), " reserve");
  for (const char* path : {"/metrics", "/abort_request", "/flush_cache", "/v1/models", "/v1/loads"}) {
    EXPECT_EQ(needs("POST", path, ""), " reserve");
    EXPECT_EQ(needs("GET", path, "secret"), "body reserve");
  }
  EXPECT_EQ(needs("POST", "/abort_request", "secret"), "body reserve");
}

TEST(Service, IsReadyBetweenStartAndDrain) {
  FakeSink sink(says("x"));
  Service service({}, demo_card(), sink, &demo_tokenizer(), &demo_template());
  const auto status = [&](const char* method, const char* path, const char* body) {
    http::Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    FakeWriter writer;
    service.handle(request, writer);
    return writer.answer.status;
  };
  EXPECT_EQ(status("GET", "/ready", ""), 503);
  EXPECT_EQ(status("POST", "/generate", R"({"input_ids": [5]})"), 503);
  service.set_ready();
  EXPECT_EQ(status("GET", "/ready", ""), 200);
  EXPECT_EQ(status("POST", "/generate", R"({"input_ids": [5]})"), 200);
  service.set_draining();
  EXPECT_EQ(status("GET", "/ready", ""), 503);
  EXPECT_EQ(status("GET", "/health", ""), 200);
  EXPECT_EQ(status("POST", "/generate", R"({"input_ids": [5]})"), 503);
}

TEST(Health, IsAboutProgressNotAboutLoad) {
  ServiceOptions options;
  options.stall_seconds = 10.0;
  const auto check = [&](const SchedulerStats& stats, int64_t now) {
    return check_health(options, stats, now).ok();
  };
  const auto second = [](int64_t s) { return s * 1'000'000'000; };
  SchedulerStats busy;
  busy.running_requests = 500;
  busy.waiting_requests = 500;
  busy.progress_ns = second(1000);
  EXPECT_TRUE(check(busy, second(1000)));  // however long nobody has looked
  EXPECT_TRUE(check(busy, second(1009)));  // one long step
  EXPECT_FALSE(check(busy, second(1011)));
  busy.progress_ns = second(1012);
  EXPECT_TRUE(check(busy, second(1012)));
  SchedulerStats idle;
  EXPECT_TRUE(check(idle, second(1020)));
  EXPECT_TRUE(check(idle, second(4000)));
  options.engine_state = [] { return Result<void>(error(ErrorCode::kInternal, "the device failed")); };
  EXPECT_FALSE(check(idle, second(4001)));
}

TEST(Health, ADeadEngineIsNeitherHealthyNorReady) {
  ServiceOptions options;
  options.engine_state = [] { return Result<void>(error(ErrorCode::kInternal, "the device failed")); };
  Desk desk(says("x"), options);
  for (const char* path : {"/health", "/ready", "/health_generate"}) {
    const http::Response response = desk.call("GET", path);
    EXPECT_EQ(response.status, 503) << path;
    EXPECT_NE(response.body.find("the device failed"), std::string::npos) << path;
  }
}

TEST(Health, GenerateRunsAToken) {
  Desk desk(says("x"));
  EXPECT_EQ(desk.call("GET", "/health_generate").status, 200);
  EXPECT_EQ(desk.sink.requests().at(0).sampling.max_new_tokens, 1);
  ServiceOptions options;
  options.health_generate_timeout_seconds = 0.1;
  Desk silent(
      [](const GenerateRequest&) { return Result<std::vector<TokenEvent>>(std::vector<TokenEvent>()); },
      options);
  EXPECT_EQ(silent.call("GET", "/health_generate").status, 503);
  EXPECT_EQ(silent.sink.running(), 0u);
}

TEST(Cancel, AVanishedClientFreesItsRequestsWhileTheyWait) {
  for (const char* stream : {"true", "false"}) {
    Desk desk(
        [](const GenerateRequest&) { return Result<std::vector<TokenEvent>>(std::vector<TokenEvent>()); });
    Call call(desk, kChat, std::string("{") + kHello + R"(, "n": 3, "stream": )" + stream + "}");
    call.start();
    ASSERT_TRUE(soon([&] { return desk.sink.running() == 3; }));
    call.writer.vanish();
    EXPECT_EQ(desk.sink.running(), 0u);  // at once, not when the handler wakes
    call.join();
    EXPECT_EQ(ordered_json::parse(desk.call("GET", "/server_info").body)["requests_in_work"], 0);
  }
}

TEST(Cancel, AFailedWriteFreesTheRequest) {
  Desk desk(starts_saying("one two three four five"));
  desk.sink.set_one_by_one();
  for (const char* path : {kChat, "/generate", kCompletions}) {
    const std::string prompt = path == std::string(kChat)         ? std::string(kHello)
                               : path == std::string("/generate") ? R"("text": "a")"
                                                                  : R"("prompt": "a")";
    Call call(desk, path, "{" + prompt + R"(, "stream": true})");
    call.writer.on_write = [&] { desk.sink.give_next(); };
    call.writer.writes_left = 2;
    call.start();
    call.join();
    EXPECT_EQ(desk.sink.running(), 0u) << path;
    EXPECT_FALSE(call.writer.ended);
  }
}

TEST(Cancel, ByIdExactly) {
  Desk desk(starts_saying("one two"));
  Call call(desk, "/generate", R"({"text": "a", "rid": "job-1"})");
  call.start();
  ASSERT_TRUE(soon([&] { return desk.sink.running() == 1; }));
  EXPECT_EQ(desk.post("/generate", R"({"text": "a", "rid": "job-1"})").status, 400);  // in use
  EXPECT_EQ(desk.post("/abort_request", R"({"rid": "job"})").status, 200);
  EXPECT_EQ(desk.post("/abort_request", R"({"rid": "job-1-"})").status, 200);
  EXPECT_EQ(desk.sink.running(), 1u);
  EXPECT_EQ(desk.call("POST", "/flush_cache").status, 400);
  EXPECT_EQ(desk.post("/abort_request", R"({"rid": "job-1"})").status, 200);
  call.join();
  const ordered_json answer = ordered_json::parse(call.writer.answer.body);
  EXPECT_EQ(answer["meta_info"]["finish_reason"]["type"], "abort");
  EXPECT_EQ(answer["text"], "one two");
  EXPECT_EQ(desk.call("GET", "/flush_cache?timeout=1").status, 200);
  EXPECT_EQ(desk.call("GET", "/flush_cache?timeout=-1").status, 400);
  desk.json("/abort_request", "{}", 400);
}

// What a request was read from is not held for as long as its answer takes.
TEST(Service, LetsGoOfTheBodyWhenTheRequestRuns) {
  const auto held = [] {
    const struct mallinfo2 info = ::mallinfo2();
    return static_cast<int64_t>(info.uordblks) + static_cast<int64_t>(info.hblkhd);
  };
  constexpr size_t kLarge = 16 << 20;
  for (const auto& [path, start] :
       {std::pair{kChat, std::string(kHello)}, std::pair{kCompletions, std::string(R"("prompt": "a")")}}) {
    Desk desk(says("one two three"));
    const int64_t before = held();
    int64_t most = before;
    Call call(desk, path,
              "{" + start + R"(, "stream": true, "metadata": {"x": ")" + std::string(kLarge, 'y') + "\"}}");
    call.writer.on_write = [&] { most = std::max(most, held()); };
    call.start();
    call.join();
    EXPECT_EQ(call.writer.answer.status, 200) << path;
    EXPECT_LT(most - before, int64_t{kLarge} / 4) << path;
  }
}

TEST(Profile, AnswersWithWhatRanBetween) {
  ServiceOptions options;
  std::optional<int> recorded;
  options.start_profile = [&recorded] { recorded = 7; };
  options.stop_profile = [&recorded]() -> std::optional<std::string> {
    if (!std::exchange(recorded, std::nullopt)) return std::nullopt;
    return R"({"traceEvents":[]})";
  };
  Desk desk(starts_saying("one"), options);
  EXPECT_EQ(desk.call("POST", "/stop_profile").status, 400) << "nothing was started";
  EXPECT_EQ(desk.call("POST", "/start_profile").status, 200);
  EXPECT_EQ(desk.post("/start_profile", "{}").status, 200);
  EXPECT_EQ(desk.call("GET", "/stop_profile").body, R"({"traceEvents":[]})");
  EXPECT_NE(desk.post("/start_profile", R"({"output_dir": "/tmp"})").body.find("leave it out"),
            std::string::npos);
  EXPECT_EQ(desk.post("/start_profile", R"({"nonsense": 1})").status, 400);
}

TEST(Cancel, All) {
  Desk desk(starts_saying("one"));
  Call call(desk, kChat, std::string("{") + kHello + R"(, "stream": true})");
  call.start();
  ASSERT_TRUE(soon([&] { return desk.sink.running() == 1; }));
  EXPECT_EQ(desk.post("/abort_request", R"({"abort_all": true})").status, 200);
  call.join();
  const auto events = Desk::events_of(call.writer.answer.body);
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "abort");
}

// A handler whose choices all wait sleeps; four times a second it looks after its client.
TEST(Stream, WaitsForAllChoicesWithoutPolling) {
  Desk desk(starts_saying("one two"));
  Call call(desk, kChat, std::string("{") + kHello + R"(, "n": 8})");
  call.start();
  ASSERT_TRUE(soon([&] { return desk.sink.running() == 8; }));
  const int before = call.writer.looks();
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_LE(call.writer.looks() - before, 30);  // of 16 events and the time; 150 when it polls
  desk.sink.cancel_all();
  call.join();
  for (const auto& choice : ordered_json::parse(call.writer.answer.body)["choices"])
    EXPECT_EQ(choice["message"]["content"], "one two");
}

TEST(Stream, KeepAliveCommentsWhileNothingComes) {
  ServiceOptions options;
  options.keep_alive_seconds = 0.05;
  Desk desk([](const GenerateRequest&) { return Result<std::vector<TokenEvent>>(std::vector<TokenEvent>()); },
            options);
  Call call(desk, kChat, std::string("{") + kHello + R"(, "stream": true})");
  call.writer.writes_left = 2;  // then it vanishes, which ends the wait
  call.start();
  call.join();
  EXPECT_EQ(call.writer.answer.body, ": keep-alive\n\n: keep-alive\n\n");
  EXPECT_EQ(desk.sink.running(), 0u);
}

}  // namespace
}  // namespace fathom::api
