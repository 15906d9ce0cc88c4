// /metrics, and the request ids that every answer carries.
#include "api/metrics.h"

#include "api/fixture.h"

namespace fathom::api {
namespace {

ServiceOptions with_metrics(MetricNames names = MetricNames::kSglang) {
  ServiceOptions options;
  options.metrics = true;
  options.metric_names = names;
  return options;
}

std::string page_of(Desk& desk) {
  const http::Response response = desk.call("GET", "/metrics");
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.content_type, "text/plain; version=0.0.4; charset=utf-8");
  return response.body;
}

// The value of the one sample that begins with `name`, labels included as far as given; -1: there is none.
double value_of(const std::string& page, const std::string& name) {
  const size_t at = page.find("\n" + name);
  if (at == std::string::npos) return -1;
  const size_t end = page.find('\n', at + 1);
  return std::stod(page.substr(page.rfind(' ', end) + 1));
}

TEST(Metrics, AreOffUnlessAskedFor) {
  Desk desk(says("x"));
  const http::Response response = desk.call("GET", "/metrics");
  EXPECT_EQ(response.status, 404);
  EXPECT_NE(response.body.find("--enable-metrics"), std::string::npos);
}

TEST(Metrics, CountRequestsByOutcome) {
  Desk desk(says("Hi there"), with_metrics());
  desk.post(kChat, std::string("{") + kHello + R"(, "n": 2})");
  desk.post(kChat, std::string("{") + kHello + R"(, "max_tokens": 1})");
  desk.post(kChat, "{}");
  const std::string page = page_of(desk);
  EXPECT_EQ(value_of(page, "fathom:requests_total{model_name=\"demo\",outcome=\"stop\"}"), 2);
  EXPECT_EQ(value_of(page, "fathom:requests_total{model_name=\"demo\",outcome=\"length\"}"), 1);
  EXPECT_EQ(value_of(page, "fathom:http_answers_total{code=\"400\"}"), 1);
  EXPECT_EQ(value_of(page, "sglang:num_requests_total"), 3);
  EXPECT_EQ(value_of(page, "sglang:num_aborted_requests_total"), 0);
  EXPECT_EQ(value_of(page, "sglang:time_to_first_token_seconds_count"), 3);
  EXPECT_GT(value_of(page, "sglang:inter_token_latency_seconds_count"), 1);
  EXPECT_EQ(value_of(page, "sglang:prompt_tokens_histogram_count"), 3);
  EXPECT_EQ(page.find("vllm:"), std::string::npos);
}

TEST(Metrics, ShowTheSchedulersFigures) {
  Desk desk(says("x"), with_metrics(MetricNames::kBoth));
  SchedulerStats stats;
  stats.waiting_requests = 3;
  stats.used_tokens = 25;
  stats.total_tokens = 100;
  stats.prompt_tokens = 40;
  stats.prompt_cached_tokens = 10;
  stats.retractions = 4;
  stats.leaked_pages = 2;
  stats.cache_misses.requests[static_cast<size_t>(MissReason::kEvicted)] = 5;
  stats.cache_misses.tokens[static_cast<size_t>(MissReason::kEvicted)] = 60;
  stats.speculates = true;
  stats.speculation = {10, 20, 15, {}};
  desk.sink.set_stats(stats);
  const std::string page = page_of(desk);
  EXPECT_EQ(value_of(page, "sglang:num_queue_reqs"), 3);
  EXPECT_EQ(value_of(page, "sglang:token_usage"), 0.25);
  EXPECT_EQ(value_of(page, "sglang:cache_hit_rate"), 0.25);
  EXPECT_EQ(value_of(page, "fathom:pages_leaked"), 2);
  EXPECT_EQ(value_of(page, "fathom:cache_miss_requests_total{model_name=\"demo\",reason=\"evicted\"}"), 5);
  EXPECT_EQ(value_of(page, "fathom:cache_miss_tokens_total{model_name=\"demo\",reason=\"evicted\"}"), 60);
  EXPECT_EQ(value_of(page, "fathom:cache_miss_tokens_total{model_name=\"demo\",reason=\"never_seen\"}"), 0);
  EXPECT_EQ(value_of(page, "sglang:spec_accept_length"), 2.5);
  EXPECT_EQ(value_of(page, "sglang:spec_accept_rate"), 0.75);
  EXPECT_EQ(value_of(page, "vllm:spec_decode_num_accepted_tokens_total"), 15);
  EXPECT_EQ(value_of(page, "vllm:num_preemptions_total"), 4);
  EXPECT_EQ(value_of(page, "vllm:num_requests_waiting"), 3);
  EXPECT_GT(value_of(page, "process_resident_memory_bytes"), 1e6);
}

TEST(Metrics, CountDisconnectsByStage) {
  Desk desk(starts_saying("Once upon a time"), with_metrics());
  http::Request request;
  request.method = "POST";
  request.path = kChat;
  request.body = std::string("{") + kHello + R"(, "stream": true})";
  FakeWriter writer;
  writer.writes_left = 2;
  desk.service.handle(request, writer);
  FakeWriter gone;
  gone.vanish();
  request.body = std::string("{") + kHello + "}";
  desk.service.handle(request, gone);
  const std::string page = page_of(desk);
  EXPECT_EQ(value_of(page, "fathom:disconnects_total{model_name=\"demo\",stage=\"decode\"}"), 2);
  EXPECT_EQ(value_of(page, "fathom:disconnects_total{model_name=\"demo\",stage=\"queued\"}"), 0);
  EXPECT_EQ(value_of(page, "fathom:requests_total{model_name=\"demo\",outcome=\"disconnect\"}"), 2);
  EXPECT_EQ(value_of(page, "sglang:num_aborted_requests_total"), 2);
}

TEST(RequestIds, ComeBackInEveryAnswer) {
  Desk desk(says("x"));
  for (const auto& [method, path, body] :
       {std::tuple{"GET", "/health", ""}, std::tuple{"GET", "/nothing", ""}, std::tuple{"POST", kChat, "{"},
        std::tuple{"POST", kChat, R"({"messages": [{"role": "user", "content": "x"}], "rid": "mine"})"}}) {
    const http::Response given = desk.call(method, path, body, {{"X-Request-Id", "trace-17"}});
    ASSERT_NE(http::find_header(given.headers, "x-request-id"), nullptr) << path;
    EXPECT_EQ(*http::find_header(given.headers, "x-request-id"), "trace-17") << path;
  }
  const http::Response own = desk.call("GET", "/health");
  EXPECT_EQ(http::find_header(own.headers, "x-request-id")->size(), 32U);
  const http::Response odd = desk.call("GET", "/health", "", {{"X-Request-Id", "a b\x01"}});
  EXPECT_EQ(http::find_header(odd.headers, "x-request-id")->size(), 32U);
}

}  // namespace
}  // namespace fathom::api
