#include "core/qap_memetic.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace graphmatch {
namespace {

constexpr std::int64_t kAlike = 5;  // parents that differ in less than one of so many facilities

template <class Member>
bool is_better(const Member& a, const Member& b) {
  return a.value < b.value;
}

}  // namespace

std::vector<std::int64_t> QapMemetic::random_permutation() {
  std::vector<std::int64_t> assignment(static_cast<std::size_t>(costs_.nodes));
  std::iota(assignment.begin(), assignment.end(), 0);
  return scattered(assignment, costs_.nodes);
}

// Puts `count` facilities, drawn at random, onto each other's locations.
std::vector<std::int64_t> QapMemetic::scattered(const std::vector<std::int64_t>& assignment, std::int64_t count) {
  std::vector<std::int64_t> result = assignment;
  std::vector<std::int64_t> drawn(result.size());
  std::iota(drawn.begin(), drawn.end(), 0);
  for (std::int64_t i = 0; i < count; ++i) {
    std::swap(drawn[i], drawn[i + random_.below(costs_.nodes - i)]);
  }
  for (std::int64_t i = count - 1; i > 0; --i) std::swap(result[drawn[i]], result[drawn[random_.below(i + 1)]]);
  return result;
}

std::vector<std::int64_t> QapMemetic::cross(const std::vector<std::int64_t>& first,
                                            const std::vector<std::int64_t>& second) {
  const auto size = first.size();
  std::vector<std::int64_t> child(size, -1);
  std::vector<char> used(size, 0);
  auto place = [&](std::size_t facility, std::int64_t location) {
    child[facility] = location;
    used[location] = 1;
  };
  for (std::size_t i = 0; i < size; ++i) {
    if (first[i] == second[i]) place(i, first[i]);
  }
  std::vector<std::int64_t> open;
  const auto offset = static_cast<std::size_t>(random_.below(costs_.nodes));
  for (std::size_t k = 0; k < size; ++k) {
    const std::size_t i = (k + offset) % size;
    if (child[i] >= 0) continue;
    const bool swap = random_.below(2) == 0;
    const std::int64_t liked = swap ? first[i] : second[i], other = swap ? second[i] : first[i];
    if (!used[liked]) {
      place(i, liked);
    } else if (!used[other]) {
      place(i, other);
    } else {
      open.push_back(static_cast<std::int64_t>(i));
    }
  }
  for (std::size_t location = 0; location < size; ++location) {
    if (used[location]) continue;
    const auto drawn = static_cast<std::size_t>(random_.below(static_cast<std::int64_t>(open.size())));
    child[open[drawn]] = static_cast<std::int64_t>(location);
    open[drawn] = open.back();
    open.pop_back();
  }
  return child;
}

QapMemetic::Member QapMemetic::improved(const std::vector<std::int64_t>& start, const MemeticOptions& options) {
  steps_ += search_.search(start, options.steps, options.steps, options.goal, random_, stop_);
  if (search_.best_value() < best_value_) {
    best_value_ = search_.best_value();
    best_ = search_.best();
  }
  return {search_.best(), search_.best_value()};
}

bool QapMemetic::is_known(const Member& member) const {
  return std::any_of(pool_.begin(), pool_.end(), [&](const Member& other) {
    return other.value == member.value && other.assignment == member.assignment;
  });
}

void QapMemetic::add(const std::vector<std::int64_t>& start, const MemeticOptions& options) {
  Member member = improved(start, options);
  if (!is_known(member)) pool_.push_back(std::move(member));
}

void QapMemetic::fill(const MemeticOptions& options) {
  for (std::int64_t attempt = 0; attempt < 2 * options.members; ++attempt) {
    if (static_cast<std::int64_t>(pool_.size()) >= options.members || is_done(options)) return;
    add(random_permutation(), options);
  }
}

// Until the pool has not changed for as many offspring as it has members, twice.
void QapMemetic::evolve_pool(const MemeticOptions& options) {
  const auto count = static_cast<std::int64_t>(pool_.size());
  if (count < 2) return;
  for (std::int64_t failures = 0; failures <= 2 * count && !is_done(options);) {
    const std::int64_t first = random_.below(count);
    const std::int64_t second = (first + 1 + random_.below(count - 1)) % count;
    const std::vector<std::int64_t>&mother = pool_[first].assignment, &father = pool_[second].assignment;
    std::vector<std::int64_t> child = cross(mother, father);
    std::int64_t differing = 0;
    for (std::size_t i = 0; i < child.size(); ++i) differing += mother[i] != father[i];
    // Parents that are nearly the same have the same child.
    if (differing * kAlike < costs_.nodes) child = scattered(child, costs_.nodes / 3);
    Member member = improved(child, options);
    Member& worst = *std::max_element(pool_.begin(), pool_.end(), is_better<Member>);
    if (member.value < worst.value && !is_known(member)) {
      worst = std::move(member);
      failures = 0;
    } else {
      ++failures;
    }
  }
}

void QapMemetic::evolve(const MemeticOptions& options) {
  if (costs_.nodes < 2) return;
  MemeticOptions pool = options;
  for (std::int64_t failures = 0; failures < options.patience && !is_done(options);) {
    const double before = best_value_;
    fill(pool);
    evolve_pool(pool);
    failures = best_value_ < before ? 0 : failures + 1;
    pool_.assign(1, {best_, best_value_});
    pool.steps = std::min(2 * pool.steps, std::max(options.longest, options.steps));
  }
}

}  // namespace graphmatch
