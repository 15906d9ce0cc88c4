#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "app/args.h"
#include "app/local_exchange.h"
#include "app/serving.h"
#include "base/clock.h"
#include "base/log.h"
#include "http/client.h"

namespace fathom::app {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kHelp =
    "  /help             this list\n"
    "  /reset            forget the conversation\n"
    "  /system TEXT      set the system message and forget the conversation\n"
    "  /thinking on|off  let the model think first\n"
    "  /stats            tokens and speed of the last answer\n"
    "  /exit             leave (also Ctrl-D)\n";

// Where the answers come from: a model in this process, or a server.
class Backend {
 public:
  virtual ~Backend() = default;
  // Streams a chat completion; `on_bytes` gets raw SSE. Nothing, or what went wrong.
  virtual Result<void> complete(const std::string& body,
                                const std::function<bool(std::string_view)>& on_bytes) = 0;
};

Error api_error(int status, const std::string& body) {
  const Json json = Json::parse(body, nullptr, false);
  std::string message = body;
  if (json.is_object()) {
    const Json& inner = json.contains("error") && json["error"].is_object() ? json["error"] : json;
    if (inner.contains("message") && inner["message"].is_string())
      message = inner["message"].get<std::string>();
  }
  return error(ErrorCode::kInternal, "status {}: {}", status, message);
}

class LocalBackend final : public Backend {
 public:
  explicit LocalBackend(std::unique_ptr<Serving> serving) : serving_(std::move(serving)) {
    serving_->service().set_ready();
  }
  Result<void> complete(const std::string& body,
                        const std::function<bool(std::string_view)>& on_bytes) override {
    const LocalAnswer answer = post(serving_->service(), "/v1/chat/completions", body, on_bytes);
    if (answer.status != 200) return api_error(answer.status, answer.body);
    return {};
  }

 private:
  std::unique_ptr<Serving> serving_;
};

class RemoteBackend final : public Backend {
 public:
  explicit RemoteBackend(http::Client client) : client_(std::move(client)) {}
  Result<void> complete(const std::string& body,
                        const std::function<bool(std::string_view)>& on_bytes) override {
    std::string refused;
    bool streaming = false;
    FATHOM_ASSIGN(const auto answer,
                  client_.stream("POST", "/v1/chat/completions", body, {}, [&](std::string_view bytes) {
                    // An error is a plain JSON body, not an event stream.
                    if (!streaming && refused.empty() && bytes.substr(0, 1) == "{")
                      refused = std::string(bytes);
                    else if (!refused.empty())
                      refused += bytes;
                    else {
                      streaming = true;
                      return on_bytes(bytes);
                    }
                    return true;
                  }));
    if (answer.status != 200) return api_error(answer.status, refused);
    return {};
  }

 private:
  http::Client client_;
};

Result<std::unique_ptr<Backend>> open_backend(const ChatArgs& args) {
  if (!args.url.empty()) {
    http::ClientOptions options;
    if (!args.api_key.empty()) options.headers.emplace_back("Authorization", "Bearer " + args.api_key);
    FATHOM_ASSIGN(auto client, http::Client::from_url(args.url, options));
    return std::unique_ptr<Backend>(std::make_unique<RemoteBackend>(std::move(client)));
  }
  if (args.model.model_path.empty()) {
    return error(ErrorCode::kInvalidArgument, "give --model-path DIR, or --url of a running server");
  }
  FATHOM_ASSIGN(auto serving, Serving::start(args.model));
  return std::unique_ptr<Backend>(std::make_unique<LocalBackend>(std::move(serving)));
}

class Conversation {
 public:
  Conversation(const ChatArgs& args, Backend& backend)
      : args_(args), backend_(backend), thinking_(args.thinking) {
    reset(args.system);
  }

  // False: leave.
  bool command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (name == "/exit" || name == "/quit") return false;
    if (name == "/help")
      std::fputs(kHelp, stdout);
    else if (name == "/reset")
      reset(system_);
    else if (name == "/system")
      reset(rest);
    else if (name == "/thinking" && (rest == "on" || rest == "off"))
      thinking_ = rest == "on";
    else if (name == "/stats")
      std::printf("  %s\n", stats_.empty() ? "no answer yet" : stats_.c_str());
    else
      std::printf("  unknown command; the commands are\n%s", kHelp);
    return true;
  }

  void ask(const std::string& text) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    Json body{{"model", "default"}, {"messages", messages_}, {"stream", true}};
    body["stream_options"]["include_usage"] = true;
    body["chat_template_kwargs"]["thinking"] = thinking_;
    if (args_.temperature >= 0) body["temperature"] = args_.temperature;
    if (args_.top_p >= 0) body["top_p"] = args_.top_p;
    if (args_.max_tokens > 0) body["max_tokens"] = args_.max_tokens;

    const int64_t start_ns = steady_clock().now_ns();
    double first = 0.0;
    int64_t tokens = 0;
    std::string answer;
    std::string pending;  // bytes of a line that is not complete yet
    const auto done = backend_.complete(body.dump(), [&](std::string_view bytes) {
      pending += bytes;
      for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
        const std::string line = pending.substr(0, end);
        pending.erase(0, end + 1);
        if (line.rfind("data: {", 0) != 0) continue;
        const Json event = Json::parse(line.substr(6), nullptr, false);
        if (event.is_discarded()) continue;
        if (event.contains("usage") && event["usage"].is_object())
          tokens = event["usage"].value("completion_tokens", 0);
        if (!event.contains("choices") || event["choices"].empty()) continue;
        const Json& delta = event["choices"][0]["delta"];
        show_thoughts(delta);
        if (!delta.contains("content") || !delta["content"].is_string()) continue;
        const auto piece = delta["content"].get<std::string>();
        if (!piece.empty()) end_thoughts();
        if (first == 0.0 && !piece.empty()) first = seconds_since(start_ns);
        answer += piece;
        std::fputs(piece.c_str(), stdout);
        std::fflush(stdout);
      }
      return true;
    });
    end_thoughts();
    std::fputs("\n", stdout);
    if (!done.ok()) {
      std::fprintf(stderr, "%s\n", done.error().message.c_str());
      messages_.erase(messages_.end() - 1);
      return;
    }
    const double total = seconds_since(start_ns);
    stats_ = fmt::format(
        "{} tokens in {:.2f} s, first after {:.0f} ms, {:.1f} tokens/s", tokens, total, first * 1e3,
        tokens > 1 && total > first ? static_cast<double>(tokens - 1) / (total - first) : 0.0);
    messages_.push_back({{"role", "assistant"}, {"content", answer}});
  }

 private:
  // Thoughts are shown dimmed, before the answer.
  void show_thoughts(const Json& delta) {
    const auto found = delta.find("reasoning_content");
    if (found == delta.end() || !found->is_string() || found->get_ref<const std::string&>().empty()) return;
    if (!std::exchange(thoughts_shown_, true) && terminal_) std::fputs("\x1b[2m", stdout);
    std::fputs(found->get_ref<const std::string&>().c_str(), stdout);
    std::fflush(stdout);
  }
  void end_thoughts() {
    if (std::exchange(thoughts_shown_, false)) std::fputs(terminal_ ? "\x1b[0m\n" : "\n", stdout);
  }

  void reset(const std::string& system) {
    system_ = system;
    messages_ = Json::array();
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
  }

  const ChatArgs& args_;
  Backend& backend_;
  bool thinking_;
  const bool terminal_ = isatty(STDOUT_FILENO) == 1;
  bool thoughts_shown_ = false;
  std::string system_, stats_;
  Json messages_;
};

}  // namespace

int run_chat(const ChatArgs& args) {
  auto backend = open_backend(args);
  if (!backend.ok()) {
    std::fprintf(stderr, "fathom chat: %s\n", backend.error().message.c_str());
    return 1;
  }
  set_log_level(LogLevel::kWarning);
  Conversation conversation(args, **backend);
  std::printf("Type a message; /help lists the commands.\n");
  std::string line;
  while (true) {
    std::fputs("> ", stdout);
    std::fflush(stdout);
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (line[0] != '/')
      conversation.ask(line);
    else if (!conversation.command(line))
      break;
  }
  std::fputs("\n", stdout);
  return 0;
}

}  // namespace fathom::app
