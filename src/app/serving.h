// A model from its files to an answering service: tokenizer, template, engine, scheduler and API, wired
// together. `serve` puts HTTP in front of it; `chat` and `generate` call it in the same process.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/service.h"
#include "app/args.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/settings.h"
#include "sched/router.h"
#include "sched/scheduler.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::app {

// The engine's part of the flags.
engine::Settings engine_settings(const ModelArgs& args);
// The scheduler's part, for this engine.
Result<sched::SchedulerOptions> scheduler_options(const ModelArgs& args, const engine::Engine& engine);

class Serving {
 public:
  // Loads everything and starts the engine and the scheduler; logs how long each phase took.
  // `served_names`: the model's name for clients, and further ones (api::ModelCard); none: its path.
  // `options`: what does not come with the model.
  static Result<std::unique_ptr<Serving>> start(const ModelArgs& args,
                                                const std::vector<std::string>& served_names = {},
                                                api::ServiceOptions options = {});
  ~Serving();
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;

  api::Service& service() { return *service_; }
  int32_t max_running_requests() const {
    return engines_.front()->limits().max_slots * static_cast<int32_t>(engines_.size());
  }
  // What ended an engine, if something did: its requests fail from then on. Thread safe.
  Result<void> state() const;
  // That is a step that never ends: this cannot be destroyed.
  bool hangs() const;
  // A node of the model's that was told to end. Thread safe.
  std::optional<int> asked_to_end() const { return engines_.front()->asked_to_end(); }
  // Refuses new requests and waits for the running ones. False: `timeout` came first.
  bool drain(std::chrono::milliseconds timeout);
  // Aborts what still runs. Final.
  void stop();

 private:
  Serving() = default;
  Result<void> load_text(const ModelArgs& args);
  void find_encoding(const ModelArgs& args, const std::string& architecture);
  nlohmann::ordered_json describe(const ModelArgs& args) const;

  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::optional<text::ChatTemplate> template_;
  std::vector<std::unique_ptr<engine::Engine>> engines_;
  std::vector<std::unique_ptr<sched::Scheduler>> schedulers_;  // one an engine
  std::unique_ptr<sched::Router> router_;
  std::unique_ptr<api::Service> service_;
};

}  // namespace fathom::app
