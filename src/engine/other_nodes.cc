#include "engine/other_nodes.h"

#include <set>

#include "base/thread_start.h"

namespace fathom::engine {

OtherNodes::~OtherNodes() {
  end();
  for (auto& reader : readers_) reader.join();
}

void OtherNodes::end() {
  host_->stop_receiving();
  const std::lock_guard lock(mutex_);
  host_->end();
}

void OtherNodes::step(int group, const BatchPlan& plan, bool eager) {
  tell(encode_step(group, plan, eager));
}

void OtherNodes::masks(int group, uint64_t step, const std::vector<MaskRow>& rows) {
  tell(encode_masks(group, step, rows));
}

void OtherNodes::pass(const PassBoard::Pass& pass, const std::vector<bool>& idle) {
  tell(encode_pass_begun(pass, idle));
}

void OtherNodes::tell(std::string_view message) {
  const std::lock_guard lock(mutex_);
  (void)host_->send(message);
}

void OtherNodes::listen(std::vector<LeaderListener*> listeners, const std::vector<int>& nodes,
                        const ExecutorLimits& limits) {
  listeners_ = std::move(listeners);
  std::set<int> leading;
  for (size_t group = 0; group < listeners_.size(); ++group) {
    if (listeners_[group] != nullptr) leading.insert(nodes[group]);
  }
  for (const int node : leading)
    readers_.emplace_back([this, node, nodes, limits] {
      begin_thread(fmt::format("node {} reader", node).c_str());
      read(node, nodes, limits);
    });
}

void OtherNodes::forget(int group) {
  const std::lock_guard lock(listeners_mutex_);
  if (static_cast<size_t>(group) < listeners_.size()) listeners_[static_cast<size_t>(group)] = nullptr;
}

void OtherNodes::read(int node, const std::vector<int>& nodes, const ExecutorLimits& limits) {
  const auto groups = static_cast<int32_t>(nodes.size());
  while (true) {
    const auto bytes = host_->receive(node);
    if (bytes.ok() && !bytes->has_value()) return;
    auto message =
        bytes.ok() ? parse_leader_message(**bytes, groups, limits) : Result<LeaderMessage>(bytes.error());
    if (message.ok() && nodes[static_cast<size_t>(message->group)] != node)
      message = error(ErrorCode::kInternal, "node {} spoke for the group of another", node);
    if (bytes.ok() && !message.ok()) host_->fail(message.error());
    const std::lock_guard lock(listeners_mutex_);
    if (message.ok()) {
      if (auto* listener = listeners_[static_cast<size_t>(message->group)]; listener != nullptr)
        listener->take(std::move(*message));
      continue;
    }
    for (size_t group = 0; group < nodes.size(); ++group) {
      if (nodes[group] == node && listeners_[group] != nullptr) listeners_[group]->fail(message.error());
    }
    return;
  }
}

}  // namespace fathom::engine
