// The engine on one GPU. One thread turns plans into queued work and goes on to the next plan; another waits
// for each step's end and answers it. So the GPU finds its next step queued when this one ends, and the host
// never waits inside a step, but for prompt logprobs, which are rare, and for masks: a row with a mask needs
// to know the token that the step before chooses, and what is guessed. Then the draft and the forward pass
// are queued at once, and the choice when the masks are there, which they are long before the forward pass
// ends.
//
// On several GPUs each rank is an engine of its own, with its threads, graphs and KV pool. One leads: it is
// given the plans, hands each to the others too, and answers when all have. All choose the same tokens, for
// they have the same logits; that they did is checked at every step. What is random or slow about a plan is
// done once, by the leader: masks are found by it for all. With stages (Split::pp) the last one chooses, and
// its first rank leads: what it chose, and guessed, is handed back to the others on the GPUs.
//
// Where ranks are groups of requests (Split::dp) each group has a leader, with plans of its own, and they
// agree on each pass (engine/pass_board.h).
//
// On GPUs of several nodes, leaders on node 0 tell the engines of the others what they are given; a leader on
// another node is told so itself, and asks node 0 for masks (gpu_nodes.h).
//
// With speculation a decode row has D = 1 + max_drafts tokens of every step: its last one and the guesses.
// The draft layer guesses on the GPU, ahead of the forward pass and in the same graph; look-up on the host.
// The tokens are chosen one position after another, for the rows whose guesses have held so far. In a step
// where no row guesses D is 1 and the draft layer writes its entries alone, which takes little; nobody waits
// for such a step's answer to plan the next. Guesses may be trees: the draft layer's passes then have several
// branches of each row, and the choice goes along one of them (tree_kernels.h).
#pragma once

#include <array>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/queue.h"
#include "device/cuda/graph.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "device/launch.h"
#include "dist/cuda/gpu_group.h"
#include "engine/cuda/guess_input.h"
#include "engine/cuda/step_input.h"
#include "engine/cuda/step_masks.h"
#include "engine/cuda/step_output.h"
#include "engine/cuda/tree_kernels.h"
#include "engine/drafter.h"
#include "engine/engine.h"
#include "engine/pass_board.h"
#include "model/cuda/model.h"
#include "sample/cuda/gpu_sampler.h"
#include "sample/mask_workers.h"

namespace fathom::engine {
class OtherNodes;
}

namespace fathom::engine::cuda {

class NodeZero;

// What the engine asks of the model.
model::cuda::LoadOptions load_options(const EngineOptions& options);

class GpuEngine final : public Engine {
 public:
  // One for each group of requests; with its followers, where heads are split. On node 0 of several.
  static Result<std::vector<std::unique_ptr<Engine>>> start(const EngineOptions& options);
  // On another node: engines that do what they are told.
  struct Followers {
    std::vector<std::unique_ptr<GpuEngine>> engines;
    std::unique_ptr<dist::ControlGuest> guest;
  };
  static Result<Followers> start_over_nodes(const EngineOptions& options);
  ~GpuEngine() override;

  std::future<Result<StepResult>> step(BatchPlan plan) override;
  Result<std::vector<OpTime>> trace_step(BatchPlan plan) override;
  std::optional<DeviceClock> device_clock() const override;
  std::optional<ExpertReport> experts() const override;
  std::optional<int> asked_to_end() const override;

  // Of requests.
  int group() const { return place_.group; }
  bool leads() const { return leads_; }
  // Of a split in groups of requests: the board that they share, and this rank's number in its group, of
  // which 0 leads.
  void join(std::shared_ptr<PassBoard> board, int member);
  // A further rank of the leader's group in this process.
  void lead(std::unique_ptr<GpuEngine> follower) { followers_.push_back(std::move(follower)); }
  // On another node than 0: a step as node 0 took it, and the masks that it will find.
  std::future<Result<StepResult>> follow(BatchPlan plan, bool eager, std::shared_ptr<FoundMasks> found);
  // There, of a leader: before its first step.
  void ask_for_masks(std::shared_ptr<NodeZero> zero) { zero_ = std::move(zero); }
  // Whether all nodes go on.
  Result<void> world_state() const { return group_->host().state(); }
  void fail(Error why) const { (void)with_group(std::move(why)); }

 private:
  struct Slot {
    LogprobParams logprobs;
    std::vector<int32_t> block_table;
    bool constrained = false;                              // not every token may come, always
    std::shared_ptr<sample::MaskWorkers::Sequence> masks;  // of a constrained one, where this rank leads
    int64_t chosen = 0;  // tokens of the output, those of steps in flight among them
    int64_t pass = 0;    // the last one that chose a token of it
    // The draft layer's: the positions computed that it has not seen, and the tokens after all but the last.
    // After a step with guesses both are known once it is answered; after others, once it is queued.
    int32_t behind = 0;
    std::vector<int32_t> recent;
  };
  struct Work {
    BatchPlan plan;
    std::promise<Result<StepResult>> promise;
    bool idle = false;                     // nothing: a pass began without this group
    bool eager = false;                    // to run the step without a graph
    device::cuda::Trace* trace = nullptr;  // to time its ops
    // On several ranks: the leader's masks for all, and the followers' answers.
    std::shared_ptr<FoundMasks> found;
    std::vector<std::future<Result<StepResult>>> others;
  };
  // A step in flight: its input and answer in pinned memory, and who waits for it.
  struct Frame {
    device::cuda::PinnedBuffer input;
    StepOutput output;
    StepMasks masks;
    // What the draft layer guessed, where masks need to know: [K, rows], or of trees' places [rows, D] their
    // tokens, then their parents.
    device::cuda::PinnedBuffer guesses;
    device::cuda::Event begun, done, drafted;
    StepResult result;
    std::vector<RowChoice> choices;
    int64_t stride = 0;     // rows of a position's choices, padding included
    int64_t positions = 1;  // choices of a row, at most
    std::promise<Result<StepResult>> promise;
    std::vector<std::future<Result<StepResult>>> others;
    Result<void> status;
    int64_t rows = 0, tokens = 0;
    bool idle = false;   // nobody waits for it
    bool alert = false;  // its answer is waited for to plan the next step
  };
  static constexpr size_t kFrames = 4;
  // What a graph holds: all of a step, or, where a row needs masks, the draft layer's passes and the forward
  // pass apart.
  enum class GraphKind { kGreedy, kDraws, kDraft, kForward };

  using Ranks = std::vector<std::unique_ptr<GpuEngine>>;
  // Of this process, all at once, in the order of `groups`; `speaks`: which of them shows its progress for
  // all.
  static Result<Ranks> start_ranks(const EngineOptions& options, const std::vector<int>& gpus,
                                   std::vector<std::unique_ptr<dist::cuda::GpuGroup>> groups, size_t speaks);
  // Waits for the step's end; where other processes have a part in it, no longer than the group's timeout.
  Result<void> wait_for(const Frame& frame) const;

  // A rank of several has a group.
  GpuEngine(const EngineOptions& options, int gpu, std::unique_ptr<dist::cuda::GpuGroup> group);
  // The engine of one rank, running.
  static Result<std::unique_ptr<GpuEngine>> start_rank(const EngineOptions& options, int gpu,
                                                       std::unique_ptr<dist::cuda::GpuGroup> group);
  Result<void> run(const EngineOptions& options);
  // Keeps the masks of its group's requests; others are told what it finds.
  bool finds_masks() const { return leads_ && zero_ == nullptr; }
  // Whether this rank has logits to choose from.
  bool chooses() const { return model_->last_stage(); }
  bool hands_back_later() const { return steps_at_once() > 1; }
  // This group's part in passes that began without it.
  void take_idle_passes();
  void run_idle_pass(const PassBoard::Pass& pass);
  void queue_idle_pass(const PassBoard::Pass& pass, Frame& frame);
  PassBoard::Pass agree(const PassBoard::Want& want);
  // Before every pass: balances experts when it is time.
  Result<void> count_pass();
  // Waits for all ranks on the host: so that none of them waits on its GPU while another takes memory.
  Result<void> gather_ranks() const;
  std::future<Result<StepResult>> submit(Work work);
  // The leader's answer, when those of the others are there and the same.
  Result<StepResult> agreed(Result<StepResult> mine,
                            std::vector<std::future<Result<StepResult>>>& others) const;
  // `status`, or what ended the group; ends it where the first is an error.
  Result<void> with_group(Result<void> status) const;
  Result<void> load(const EngineOptions& options);
  Result<void> allocate_step_memory();
  Result<void> capture_graphs(const std::vector<int32_t>& sizes);
  Result<void> capture_graph(int64_t rows, GraphKind kind, bool brief, bool first);
  void launch_graph(int64_t rows, GraphKind kind);
  // GpuBatch::most_places of a step.
  int64_t bound_of(const BatchPlan& plan) const;

  void launch_steps();
  std::optional<Work> next_work(bool alert);
  void answer_steps();
  // Where nobody who plans waits for this rank's answers: until what they tell of guesses is known here, as
  // it is where the next plan came from.
  void wait_for_notes();
  void tell_masks(const Frame& frame);
  static Result<StepResult> answer_of(Frame& frame);
  static std::vector<int32_t> tokens_of(const Frame& frame, size_t choice);
  void count_time(const Frame& frame, const Frame* before);
  Result<void> queue_step(BatchPlan& plan, Frame& frame);
  Result<void> open_slots(BatchPlan& plan);
  void lay_out(BatchPlan& plan);
  // The padded number of rows that a graph takes, or 0: there is none for so many.
  int64_t graph_size(int64_t rows) const;
  Result<void> queue_forward(Frame& frame);
  void forward(const StepLayout& layout, const GuessLayout& guesses,
               const std::vector<model::cuda::ExtendPass>& passes, int64_t extend_tokens, int64_t places);
  // The padded number of sampling rows is known: their logits, and what guessing takes.
  void lay_out_rows(int64_t rows, int64_t tokens);
  // Who guesses, and what the step asks of the model.
  PassBoard::Want plan_guesses(const BatchPlan& plan);
  // Of a step where nobody guesses.
  void lay_out_catch_up();
  void add_behind(int32_t index, int32_t start, int32_t begin, int32_t end, DraftTokens* tokens,
                  int64_t* at) const;
  void lay_out_guesses(int64_t rows);
  void lay_out_trees(int64_t rows, int64_t tokens);
  void lay_out_named(const BatchPlan& plan);
  int64_t place_of(const Slot& slot, int32_t position) const;
  bool drafts_layer() const { return limits_.draft_layer; }
  bool trees() const { return shape_.branches > 1; }
  // Of the step being queued: the draft layer's passes, and the choices of a row.
  int32_t passes() const { return width_ == 1 ? 0 : trees() ? shape_.passes : width_ - 1; }
  int32_t choices() const { return width_ == 1 ? 1 : kept_; }
  GuessLayout::Sizes guess_sizes(int64_t rows, int64_t tokens) const;
  TreeRows tree_rows(const GuessLayout& layout) const;
  // The draft layer's passes before the forward pass, and its entries of named rows after it. `most_rows`: of
  // any group.
  void draft(const StepLayout& step, const GuessLayout& layout, bool draws, int64_t most_rows);
  void draft_chains(const GuessLayout& layout, bool draws, int64_t most_rows);
  void draft_trees(const StepLayout& step, const GuessLayout& layout, bool draws, int64_t most_rows);
  // This group's part in the passes of others.
  void draft_nothing(int64_t most_rows);
  // The stages before the last learn what is guessed.
  void hand_back_guesses(const StepLayout& step, const GuessLayout& layout);
  // What they need of trees beside tokens and positions: to compute the step, and to settle it.
  ops::cuda::Matrix tree_tails(int64_t tokens) const;
  ops::cuda::Matrix tree_choices(int64_t rows) const;
  // Numbers of four bytes, whatever they mean.
  static ops::cuda::Matrix numbers(void* data, int64_t count) {
    return {data, device::DType::kF32, 1, count};
  }
  void resolve_draft_tokens(const GuessLayout& layout, const model::cuda::GpuBatch& batch);
  void run_follow(FollowInput& input);
  void keep_states(const GuessLayout& layout);
  // What the answered step's tokens tell the next guesses.
  void note_outputs(const Frame& frame);
  // Chooses the rows' tokens from the last forward pass; with masks once they have been sent. All stages then
  // have them.
  void choose(const StepLayout& layout, const GuessLayout& guesses, bool draws, bool masked);
  void sample_rows(const StepLayout& layout, const GuessLayout& guesses, bool draws, bool masked);
  // Which rows go on after choice `position`, whose slots are `row_slots`; returns those of the next one.
  const int32_t* follow(const GuessLayout& guesses, int32_t position, const int32_t* row_slots);
  // Brings the draft layer's guesses to the host.
  void bring_guesses(Frame& frame, const GuessLayout& guesses);
  // Waits for the masks of the step's choices and sends them.
  Result<void> send_masks(Frame& frame, bool guessed);
  // Those of the step's choices, here or by node 0, and all that rows with masks guess.
  std::vector<MaskRow> find_masks(Frame& frame, const MaskShape& shape,
                                  const std::vector<GuessedRow>& guessed);
  void ask_node_zero(const Frame& frame, const MaskShape& shape, std::vector<GuessedRow> guessed);
  sample::GuessTree drafted_guesses(const Frame& frame, const GuessInput::Row& row) const;
  // Queues the telling of what stands in rows of logits: of `args` only those and their tokens are given. The
  // ids that are asked about lie in output.ids().
  void describe(sample::cuda::LogprobArgs args, const LogprobShape& shape, StepOutput& output);
  Result<void> report_prompt(const BatchRow& row, int32_t first, RowResult* result);

  const int gpu_;
  std::unique_ptr<dist::cuda::GpuGroup> group_;  // or none: the only rank
  const model::Place place_;
  const bool leads_;
  std::shared_ptr<PassBoard> board_;  // where there are several groups of requests
  int member_ = 0;
  std::unique_ptr<device::cuda::Stream> stream_;
  std::unique_ptr<model::cuda::Model> model_;
  model::cuda::KvPool cache_;
  device::cuda::DeviceArena arena_;
  std::unique_ptr<sample::cuda::GpuSampler> sampler_;
  struct GraphKey {
    int64_t rows;   // padded
    int32_t width;  // tokens of a row
    GraphKind kind;
    bool brief;  // for steps whose sequences have at most brief_places_
    auto operator<=>(const GraphKey&) const = default;
  };
  std::map<GraphKey, device::cuda::Graph> graphs_;
  std::vector<int64_t> graph_rows_;  // ascending
  int64_t brief_places_ = 0;         // Model::brief_context of a token
  sample::MaskWorkers masks_;
  std::vector<Slot> slots_;

  bool eager_ = false;
  std::shared_ptr<FoundMasks> found_;        // of the step being queued, or none
  StepInput input_;                          // of the step being queued
  device::cuda::DeviceBuffer device_input_;  // what Frame::input is copied to
  SlotTables tables_;
  int32_t* device_tokens_ = nullptr;  // [D, rows] the step's choices, by position and row; -1: none
  // Those, and the last tokens before them, as four-byte numbers. Stages that compute steps of their own at
  // the same time (steps_at_once()) hand them back in the next pass, or when they are needed.
  ops::cuda::Matrix chosen_;
  int64_t handed_back_ = 0;  // the last pass whose choices have been, or will be in the pass being queued
  int64_t needed_ = 0;       // the last whose choices it goes on from
  int32_t* step_slots_ = nullptr;  // [D, slots] the rows that choose at each position
  float* adjusted_ = nullptr;      // [slots, V]
  DeviceMasks device_masks_;
  DeviceLogprobs device_logprobs_;
  int32_t widest_ = 1;  // 1 + the guesses of a row, at most
  TreeShape shape_;     // of trees
  int32_t kept_ = 1;    // choices of a row that guesses, at most: so many hidden states are kept of each
  TreeMemory trees_;
  std::optional<sample::GuessThresholds> thresholds_;
  float simulated_acceptance_ = -1.0F;
  PassBoard::Pass pass_;  // of the step being queued
  int32_t width_ = 1;     // D of it
  GuessInput guesses_;    // of the step being queued
  FollowInput named_, catch_up_;
  device::Launch launch_;
  std::unique_ptr<Drafter> lookup_;
  std::mutex lookup_mutex_;   // of lookup_: the launcher asks it, the answerer tells it
  StepOutput prompt_output_;  // prompt logprobs: the step's own answer lies in its frame

  // The device's clock beside the host's: an event and the host's time when it had just passed.
  device::cuda::Event origin_;
  double origin_us_ = 0.0;
  mutable std::mutex clock_mutex_;
  DeviceClock clock_;
  const int32_t rebalance_passes_;
  int64_t passes_ = 0;  // with idle ones
  mutable std::mutex experts_mutex_;
  ExpertReport experts_;

  std::array<Frame, kFrames> frames_;
  Queue<Work> queue_;
  Queue<size_t> free_, in_flight_;  // frames
  std::thread launcher_, answerer_;
  Ranks followers_;  // the leader's
  const std::chrono::milliseconds timeout_;
  const bool awaited_;  // by the leader on node 0, or by node 0 itself
  std::mutex notes_mutex_;
  std::condition_variable noted_;
  int64_t not_noted_ = 0;  // steps queued whose outputs have not been noted
  // Over several nodes: of a leader on node 0, and of one on another.
  std::shared_ptr<OtherNodes> others_;
  std::shared_ptr<NodeZero> zero_;
};

}  // namespace fathom::engine::cuda
