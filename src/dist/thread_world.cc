#include "dist/thread_world.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fathom::dist {
namespace {

// About 50 us: a rank is seldom later than that when each has a processor of its own.
constexpr int kSpins = 4000;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

Meeting::Meeting(std::shared_ptr<World> world_in, std::string name_in, const std::vector<int>& world_ranks)
    : world(std::move(world_in)), name(std::move(name_in)), members(world_ranks.size()) {
  for (size_t i = 0; i < members.size(); ++i) members[i].world_rank = world_ranks[i];
}

bool Meeting::everyone_has(uint64_t ticket) const {
  return std::all_of(members.begin(), members.end(),
                     [&](const Member& member) { return member.ticket.load() >= ticket; });
}

std::string Meeting::describe(uint64_t ticket, Call::Kind kind) const {
  return fmt::format("{} {} of group {}", to_string(kind), (ticket + 1) / 2, name);
}

Result<void> Meeting::meet(int rank, uint64_t ticket) {
  members[static_cast<size_t>(rank)].ticket.store(ticket);
  world->ring();
  for (int i = 0; i < world->spins && !world->failed.load(std::memory_order_relaxed); ++i) {
    if (everyone_has(ticket)) return {};
    pause_cpu();
  }
  if (!everyone_has(ticket)) sleep(rank, ticket);
  if (everyone_has(ticket)) return {};
  return leave();
}

Error Meeting::leave() const {
  while (inside.load() != 0) std::this_thread::yield();
  return world->error();
}

// Until everyone has the ticket or the world has failed.
void Meeting::sleep(int rank, uint64_t ticket) {
  World& w = *world;
  const Member& me = members[static_cast<size_t>(rank)];
  const auto deadline = std::chrono::steady_clock::now() + w.timeout;
  std::unique_lock lock(w.mutex_);
  World::Wait& wait = w.waits_[static_cast<size_t>(me.world_rank)];
  wait = {this, ticket};
  w.sleepers.fetch_add(1);
  while (!everyone_has(ticket) && !w.failed.load()) {
    for (const Member& member : members) {
      if (member.ticket.load() < ticket && member.gone.load()) {
        w.fail_locked(error(ErrorCode::kInternal, "rank {} has left: rank {} waits for it in {}",
                            member.world_rank, me.world_rank, describe(ticket, me.call.kind)));
      }
    }
    if (w.failed.load() || w.bell_.wait_until(lock, deadline) == std::cv_status::no_timeout) continue;
    if (everyone_has(ticket) || w.failed.load()) break;
    const auto held_up = w.culprits(wait);
    w.fail_locked(
        error(ErrorCode::kDeadlineExceeded, "rank {} waited {:.1f} s in {}, held up by {}", me.world_rank,
              std::chrono::duration<double>(w.timeout).count(), describe(ticket, me.call.kind),
              held_up.empty()
                  ? "ranks that wait for each other"
                  : fmt::format("rank{} {}", held_up.size() == 1 ? "" : "s", fmt::join(held_up, ", "))));
  }
  w.sleepers.fetch_sub(1);
  wait = {};
}

World::World(int size, std::chrono::milliseconds timeout_in)
    : timeout(timeout_in),
      spins(static_cast<unsigned>(size) <= std::thread::hardware_concurrency() ? kSpins : 1),
      waits_(static_cast<size_t>(size)) {}

void World::ring() {
  if (sleepers.load() == 0) return;
  // A sleeper has looked at the tickets before this thread had the lock, or looks after it.
  { std::lock_guard lock(mutex_); }
  bell_.notify_all();
}

void World::fail(Error error) {
  std::lock_guard lock(mutex_);
  fail_locked(std::move(error));
}

void World::fail_locked(Error error) {
  if (failed.load()) return;
  error_ = std::move(error);
  failed.store(true);
  bell_.notify_all();
}

Error World::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

std::vector<int> World::culprits(const Wait& wait) const {
  std::vector<int> found;
  std::set<int> seen;
  std::vector<Wait> todo{wait};
  while (!todo.empty()) {
    const Wait next = todo.back();
    todo.pop_back();
    for (const Member& member : next.meeting->members) {
      if (member.ticket.load() >= next.ticket || !seen.insert(member.world_rank).second) continue;
      const Wait& theirs = waits_[static_cast<size_t>(member.world_rank)];
      if (theirs.meeting != nullptr && !theirs.meeting->everyone_has(theirs.ticket)) {
        todo.push_back(theirs);
      } else {
        found.push_back(member.world_rank);
      }
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace fathom::dist
