// Keys and tenants: the file, the limits, who may do what, and that tenants see nothing of each other.
#include "api/tenants.h"

#include <thread>

#include "api/fixture.h"

namespace fathom::api {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

ServiceOptions with_keys(const std::string& file, bool multi_tenant = true) {
  ServiceOptions options;
  options.keys = parse_api_keys(file).value();
  options.multi_tenant = multi_tenant;
  options.metrics = true;
  return options;
}

http::Headers key(const std::string& key) {
  return {{"Authorization", "Bearer " + key}};
}

TEST(KeyFile, IsReadLineByLine) {
  const auto keys = parse_api_keys(
      "# two keys\n\nalice:sk-1\r\n  bob-2:sk=/+2:concurrent=4, "
      "requests-per-minute=60,tokens-per-minute=1000,admin\n"
      "scraper:s:metrics");
  ASSERT_TRUE(keys.ok()) << keys.error().message;
  ASSERT_EQ(keys->size(), 3U);
  EXPECT_EQ((*keys)[0].name, "alice");
  EXPECT_EQ((*keys)[0].key, "sk-1");
  EXPECT_EQ((*keys)[0].limits, KeyLimits{});
  EXPECT_EQ((*keys)[1].key, "sk=/+2");
  EXPECT_EQ((*keys)[1].limits, (KeyLimits{4, 60, 1000}));
  EXPECT_TRUE((*keys)[1].admin);
  EXPECT_FALSE((*keys)[1].metrics);
  EXPECT_TRUE((*keys)[2].metrics);
  EXPECT_EQ(parse_api_keys("")->size(), 0U);
}

TEST(KeyFile, ErrorsNameTheLineAndNeverTheKey) {
  for (const char* text : {"a:secret9\nno-colon", "a:secret9\nb:", "a:secret9\n:secret8", "a:secret9\na b:c",
                           "a:secret9\nb:secret9", "a:secret9\na:secret8", "a:secret9\nb:c:concurrent=0",
                           "a:secret9\nb:c:concurrent=x", "a:secret9\nb:c:colour=3", "a:secret9\nb:c:admin=1",
                           "a:secret9\nb:secret8 x", "a:secret9\nb:c:secret8"}) {
    const auto keys = parse_api_keys(text);
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_NE(keys.error().message.find("line 2"), std::string::npos) << keys.error().message;
    EXPECT_EQ(keys.error().message.find("secret9"), std::string::npos) << keys.error().message;
  }
}

TEST(TokenBucket, FillsInAMinuteAndRemembersDebts) {
  TokenBucket bucket(60);
  EXPECT_EQ(bucket.wait(0, 60), 0.0);
  bucket.take(0, 60);
  EXPECT_NEAR(bucket.wait(0, 1), 1.0, 1e-6);
  EXPECT_EQ(bucket.wait(kSecond, 1), 0.0);
  bucket.take(kSecond, 31);
  EXPECT_NEAR(bucket.wait(kSecond, 0), 30.0, 1e-6);
  EXPECT_EQ(bucket.wait(1000 * kSecond, 60), 0.0);
  EXPECT_GT(bucket.wait(1000 * kSecond, 61), 0.0);  // never more than a minute's worth
}

TEST(Tenant, LimitsRequestsPlacesAndTokens) {
  Tenant tenant("a", {2, 3, 100});
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(tenant.take_request(0));
  const Refusal many = tenant.take_request(0);
  ASSERT_TRUE(many);
  EXPECT_EQ(many->status, 429);
  EXPECT_EQ(many->retry_after, 20);
  EXPECT_FALSE(tenant.take_request(20 * kSecond));

  EXPECT_EQ(tenant.take_places(0, 3, 1)->status, 400);  // could never run
  EXPECT_FALSE(tenant.take_places(0, 2, 60));
  EXPECT_EQ(tenant.take_places(0, 1, 1)->status, 429);
  tenant.give_places(1);
  EXPECT_FALSE(tenant.take_places(0, 1, 60));  // something was left: 40
  tenant.give_places(2);
  const Refusal used = tenant.take_places(0, 1, 1);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->retry_after, 12);  // 20 of a hundred a minute
  EXPECT_FALSE(tenant.take_places(13 * kSecond, 1, 1));
  tenant.count_output(13 * kSecond, 50);
  tenant.give_places(1);
  EXPECT_TRUE(tenant.take_places(13 * kSecond, 1, 1));
}

TEST(KeyRing, FindsKeysAndKeepsTheTenantsOfAReload) {
  KeyRing ring("root", parse_api_keys("a:1\nb:2:concurrent=3").value());
  EXPECT_FALSE(ring.find(""));
  EXPECT_FALSE(ring.find("3"));
  EXPECT_TRUE(ring.find("root")->admin);
  EXPECT_EQ(ring.find("root")->tenant, nullptr);
  const auto a = ring.find("1")->tenant;
  const auto b = ring.find("2")->tenant;
  ring.replace(parse_api_keys("a:new\nb:2:concurrent=4").value());
  EXPECT_FALSE(ring.find("1"));
  EXPECT_EQ(ring.find("new")->tenant, a);
  EXPECT_NE(ring.find("2")->tenant, b);  // other limits
}

TEST(Access, EveryRouteButHealthNeedsAKey) {
  Desk desk(says("x"), with_keys("a:1"));
  for (const char* path : {"/health", "/ready", "/ping"})
    EXPECT_EQ(desk.call("GET", path).status, 200) << path;
  for (const char* path :
       {"/v1/models", "/v1/models/demo", "/model_info", "/server_info", "/v1/loads", "/metrics",
        "/health_generate", "/flush_cache", "/no/such/path", "/v1/chat/completions"}) {
    EXPECT_EQ(desk.call("GET", path).status, 401) << path;
    EXPECT_EQ(desk.call("GET", path, "", key("2")).status, 401) << path;
    EXPECT_EQ(desk.call("POST", path, "{}", key("11")).status, 401) << path;
    EXPECT_NE(desk.call("GET", path, "", key("1")).status, 401) << path;
  }
  EXPECT_EQ(desk.call("GET", "/v1/models", "", {{"X-Api-Key", "1"}}).status, 200);
  EXPECT_EQ(desk.call("GET", "/v1/models", "", {{"X-Api-Key", "2"}}).status, 401);
}

TEST(Access, WhatBelongsToAllTenantsIsTheAdministrators) {
  ServiceOptions options = with_keys("a:1\nscraper:2:metrics\nboss:3:admin");
  options.admin_api_key = "root";
  options.start_profile = [] {};
  Desk desk(says("x"), std::move(options));
  for (const char* path : {"/server_info", "/v1/loads", "/metrics", "/flush_cache", "/start_profile"}) {
    EXPECT_EQ(desk.call("GET", path, "", key("1")).status, 403) << path;
    EXPECT_EQ(desk.call("GET", path, "", key("3")).status, 200) << path;
    EXPECT_EQ(desk.call("GET", path, "", key("root")).status, 200) << path;
  }
  EXPECT_EQ(desk.call("GET", "/metrics", "", key("2")).status, 200);
  EXPECT_EQ(desk.call("GET", "/server_info", "", key("2")).status, 403);
  const std::string all = R"({"abort_all": true})";
  EXPECT_EQ(desk.call("POST", "/abort_request", all, key("1")).status, 403);
  EXPECT_EQ(desk.call("POST", "/abort_request", all, key("3")).status, 200);
}

TEST(Access, AnAdminKeyAloneGuardsTheControlRoutesOnly) {
  ServiceOptions options;
  options.admin_api_key = "root";
  Desk desk(says("x"), std::move(options));
  EXPECT_EQ(desk.call("GET", "/v1/models").status, 200);
  EXPECT_EQ(desk.call("GET", "/server_info").status, 200);
  EXPECT_EQ(desk.call("GET", "/flush_cache").status, 403);
  EXPECT_EQ(desk.call("GET", "/flush_cache", "", key("root")).status, 200);
}

std::string chat(const std::string& more = "") {
  return std::string("{") + kHello + more + "}";
}

TEST(Tenants, ShareNoPrefixes) {
  Desk desk(says("x"), with_keys("a:1\nb:2"));
  desk.call("POST", kChat, chat(), key("1"));
  desk.call("POST", kChat, chat(), key("2"));
  desk.call("POST", kChat, chat(R"(, "cache_salt": "s")"), key("1"));
  desk.call("POST", kChat, chat(R"(, "cache_salt": "s")"), key("2"));
  std::set<std::string> namespaces;
  for (const auto& request : desk.sink.requests()) namespaces.insert(request.cache_namespace);
  EXPECT_EQ(namespaces.size(), 4U);
  EXPECT_FALSE(namespaces.contains(""));

  Desk shared(says("x"), with_keys("a:1\nb:2", false));
  shared.call("POST", kChat, chat(), key("1"));
  shared.call("POST", kChat, chat(), key("2"));
  for (const auto& request : shared.sink.requests()) EXPECT_EQ(request.cache_namespace, "");
}

// The cache would tell of others' prompts what it is asked about all namespaces.
TEST(Tenants, AreToldOfTheirOwnPrefixesOnly) {
  for (const bool several : {true, false}) {
    ServiceOptions options = with_keys("a:1\nb:2", several);
    options.cache_explanations = CacheExplanations::kAll;
    Desk desk(says("x"), std::move(options));
    EXPECT_EQ(desk.call("POST", kChat, chat(R"(, "explain_cache": true)"), key("1")).status, 200);
    EXPECT_EQ(desk.sink.requests().at(0).explain_miss,
              several ? ExplainMiss::kOwnNamespace : ExplainMiss::kAllNamespaces);
  }
}

// An answer comes back in the tokens it was made of for its own tenant alone: whoever sends the same words
// must not see by the count of tokens that somebody was answered so.
TEST(Tenants, RememberTheirOwnAnswersOnly) {
  // A token a letter, as the tokenizer would not choose.
  std::vector<int32_t> spelled;
  for (const char* letter : {"H", "e", "l", "l", "o"})
    spelled.push_back(demo_tokenizer().encode(letter, false).at(0));
  Desk desk([&](const GenerateRequest& request) { return tokens_of(request, spelled); },
            with_keys("a:1\nb:2"));
  const auto asked = [&](const char* who, const std::string& messages) {
    desk.sink.forget_requests();
    EXPECT_EQ(desk.call("POST", kChat, R"({"messages": [)" + messages + "]}", key(who)).status, 200);
    return desk.sink.requests().at(0).prompt;
  };
  const std::string user = R"({"role": "user", "content": "Hello"})";
  const std::string again =
      user + R"(, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"})";
  asked("1", user);
  const auto known = asked("1", again);
  const auto fresh = asked("2", again);
  EXPECT_EQ(known.size(), fresh.size() + spelled.size() - demo_tokenizer().encode("Hello", false).size());
  EXPECT_GT(known.size(), fresh.size());
}

// No salt or extra key of one tenant can name another's prefixes.
TEST(Tenants, CannotForgeANamespace) {
  Desk desk(says("x"), with_keys("a:1\nab:2"));
  std::map<std::string, std::set<std::string>> seen;  // by tenant
  for (const char* who : {"1", "2"}) {
    for (const char* salt : {"", "s", "key:a:", "key:ab:", "0:", "1:s", "b:", "a:s"}) {
      for (const char* extra : {"", "s", "key:a:", "1:s"}) {
        desk.sink.forget_requests();
        const nlohmann::json more = {{"cache_salt", salt}, {"extra_key", extra}};
        desk.call("POST", kChat, chat("," + more.dump().substr(1, more.dump().size() - 2)), key(who));
        seen[who].insert(desk.sink.requests().at(0).cache_namespace);
      }
    }
  }
  for (const std::string& name : seen["1"]) EXPECT_FALSE(seen["2"].contains(name)) << name;
  EXPECT_EQ(seen["1"].size(), 8U * 4U);
}

TEST(Tenants, AbortAndNameTheirOwnRequestsOnly) {
  Desk desk(starts_saying("Once"), with_keys("a:1\nb:2"));
  const auto run = [&](const char* who) {
    return std::thread([&desk, who] {
      http::Request request;
      request.method = "POST";
      request.path = kChat;
      request.headers = key(who);
      request.body = chat(R"(, "rid": "same")");
      FakeWriter writer;
      desk.service.handle(request, writer);
      EXPECT_EQ(writer.answer.status, 200) << writer.answer.body;
    });
  };
  std::thread first = run("1");
  std::thread second = run("2");
  while (desk.sink.running() < 2) std::this_thread::yield();
  const std::string abort = R"({"rid": "same"})";
  EXPECT_EQ(desk.call("POST", "/abort_request", abort, key("1")).status, 200);
  first.join();
  EXPECT_EQ(desk.sink.running(), 1U);
  EXPECT_EQ(desk.call("POST", "/abort_request", R"({"rid": "key:b:same"})", key("1")).status, 200);
  EXPECT_EQ(desk.sink.running(), 1U);
  desk.call("POST", "/abort_request", abort, key("2"));
  second.join();
}

TEST(Tenants, AreHeldToTheirLimits) {
  Desk desk(says("x"), with_keys("a:1:requests-per-minute=2,concurrent=4\nb:2:tokens-per-minute=10"));
  EXPECT_EQ(desk.call("POST", kChat, chat(R"(, "n": 5)"), key("1")).status, 400);
  EXPECT_EQ(desk.call("POST", kChat, chat(R"(, "n": 4)"), key("1")).status, 200);
  const http::Response third = desk.call("POST", kChat, chat(), key("1"));
  EXPECT_EQ(third.status, 429);
  EXPECT_EQ(*http::find_header(third.headers, "retry-after"), "30");
  const auto error = nlohmann::json::parse(third.body)["error"];
  EXPECT_EQ(error["code"], "rate_limit_exceeded");
  EXPECT_EQ(error["type"], "rate_limit_error");
  EXPECT_EQ(desk.call("GET", "/v1/models", "", key("1")).status, 200);

  const std::string long_prompt = R"({"prompt": "one two three four five six seven eight nine ten eleven"})";
  EXPECT_EQ(desk.call("POST", kCompletions, long_prompt, key("2")).status, 200);
  EXPECT_EQ(desk.call("POST", kCompletions, R"({"prompt": "x"})", key("2")).status, 429);
}

// Only a prompt that is worked on counts: a full queue must not lock its client out.
TEST(Tenants, AreNotChargedForWhatIsRefused) {
  int submitted = 0;
  Desk desk(
      [&](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
        if (submitted++ < 6) return error(ErrorCode::kUnavailable, "The request queue is full.");
        return tokens_of(request, {5});
      },
      with_keys("a:1:tokens-per-minute=20"));
  const std::string body = R"({"input_ids": [7, 7, 7, 7, 7, 7, 7, 7, 7, 7], "sampling_params": {"n": 2}})";
  for (int i = 0; i < 6; ++i) EXPECT_EQ(desk.call("POST", "/generate", body, key("1")).status, 503) << i;
  http::Headers elsewhere = key("1");
  elsewhere.emplace_back("X-Data-Parallel-Rank", "x");
  EXPECT_EQ(desk.call("POST", "/generate", body, elsewhere).status, 400);
  EXPECT_EQ(desk.call("POST", "/generate", body, key("1")).status, 200);
  EXPECT_EQ(desk.call("POST", "/generate", body, key("1")).status, 429);
}

// What was guessed behind a stop string is not in the usage, and not in the key's tokens.
TEST(Tenants, AreChargedForTheTokensOfTheirAnswers) {
  Desk desk(
      [](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
        std::vector<TokenEvent> events = tokens_of(request, demo_tokenizer().encode("Yes.", false), false);
        for (int i = 0; i < 100; ++i) events.back().outputs.push_back(events.back().outputs.back());
        return events;
      },
      with_keys("a:1:tokens-per-minute=60"));
  const std::string body = R"({"prompt": [7, 7], "max_tokens": 1000, "stop": ["."]})";
  for (int i = 0; i < 2; ++i) {
    const http::Response answer = desk.call("POST", kCompletions, body, key("1"));
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_LT(nlohmann::json::parse(answer.body)["usage"]["completion_tokens"], 6);
  }
}

TEST(Tenants, KeysAreReplacedWhileServing) {
  Desk desk(says("x"), with_keys("a:1"));
  desk.service.set_keys(parse_api_keys("a:2").value());
  EXPECT_EQ(desk.call("GET", "/v1/models", "", key("1")).status, 401);
  EXPECT_EQ(desk.call("GET", "/v1/models", "", key("2")).status, 200);
}

}  // namespace
}  // namespace fathom::api
