// The rules of flatbuffers' own Verifier, driven by a schema as data, without recursion: depth is the sender's choice.
#include "flatbuffer.h"

#include <vector>

namespace paraedge::flatbuffer {
namespace {

constexpr size_t kMostTables = 1'000'000;  // flatbuffers' own limit: many offsets may lead to one table
constexpr size_t kMostBytes = 0x7fffffff;

class Checker {
 public:
  Checker(std::span<const std::byte> buffer, const Schema& schema) : buffer_(buffer), schema_(schema) {}

  size_t check() {
    const size_t root = follow(0);
    pending_.push_back({root, schema_.root});
    size_t tables = 0;
    while (!pending_.empty()) {
      const Pending next = pending_.back();
      pending_.pop_back();
      require(++tables + pending_.size() <= kMostTables, "it has too many tables");
      check_table(next.at, schema_.tables[next.table]);
    }
    return root;
  }

 private:
  struct Pending {
    size_t at;
    int16_t table;
  };

  void inside(size_t at, size_t bytes, size_t alignment) const {
    require(at % alignment == 0 && at <= buffer_.size() && bytes <= buffer_.size() - at, "an offset in it leads out of it");
  }

  size_t follow(size_t at) const {  // an offset, to where it leads
    inside(at, 4, 4);
    const auto offset = read<uint32_t>(buffer_, at);
    require(offset != 0 && offset <= kMostBytes, "an offset in it leads out of it");
    inside(at + offset, 4, 1);
    return at + offset;
  }

  // Elements of a vector that an offset leads to.
  std::pair<size_t, size_t> vector(size_t at, size_t width) const {
    const size_t start = follow(at);
    inside(start, 4, 4);
    const size_t size = read<uint32_t>(buffer_, start);
    require(size <= kMostBytes / width, "a vector in it is too long");
    inside(start + 4, size * width, width);
    return {start + 4, size};
  }

  void check_string(size_t at) const {
    const auto [start, size] = vector(at, 1);
    inside(start + size, 1, 1);
    require(buffer_[start + size] == std::byte{0}, "a string in it has no end");
  }

  void check_table(size_t at, const Table& table) {
    inside(at, 4, 4);
    const int64_t entries = static_cast<int64_t>(at) - read<int32_t>(buffer_, at);
    require(entries >= 0, "an offset in it leads out of it");
    entries_ = static_cast<size_t>(entries);
    inside(entries_, 4, 2);
    entries_bytes_ = read<uint16_t>(buffer_, entries_);
    require(entries_bytes_ >= 4 && entries_bytes_ % 2 == 0, "a table in it has no fields");
    inside(entries_, entries_bytes_, 2);
    table_bytes_ = read<uint16_t>(buffer_, entries_ + 2);
    require(table_bytes_ >= 4, "a table in it has no fields");
    inside(at, table_bytes_, 4);
    for (size_t number = 0; number < table.num_fields; ++number) check_field(at, table, number);
  }

  size_t place(size_t at, size_t number, size_t width) const {  // of a field; 0: the table lacks it
    const size_t entry = 4 + 2 * number;
    if (entry + 2 > entries_bytes_) return 0;
    const auto offset = read<uint16_t>(buffer_, entries_ + entry);
    if (offset == 0) return 0;
    require(offset >= 4 && offset + width <= table_bytes_, "a field in it is outside of its table");
    inside(at + offset, width, width);
    return at + offset;
  }

  void check_field(size_t at, const Table& table, size_t number) {
    const Field& field = table.fields[number];
    if (field.kind == Kind::unused) return;
    const bool is_scalar = field.kind == Kind::scalar;
    const size_t where = place(at, number, is_scalar ? field.width : 4);
    if (field.kind == Kind::united) return check_union(at, table, number, where);
    if (where == 0 || is_scalar) return;
    if (field.kind == Kind::scalars) {
      vector(where, field.width);
    } else if (field.kind == Kind::string) {
      check_string(where);
    } else if (field.kind == Kind::table) {
      pending_.push_back({follow(where), field.inner});
    } else {
      const auto [start, size] = vector(where, 4);
      require(size + pending_.size() <= kMostTables, "it has too many tables");
      for (size_t i = 0; i < size; ++i) {
        if (field.kind == Kind::strings) check_string(start + 4 * i);
        else pending_.push_back({follow(start + 4 * i), field.inner});
      }
    }
  }

  void check_union(size_t at, const Table& table, size_t number, size_t where) {
    const Union& kind = schema_.unions[table.fields[number].inner];
    const size_t type_at = place(at, number - 1, 1);
    const size_t type = type_at ? std::to_integer<size_t>(buffer_[type_at]) : 0;
    require((type == 0) == (where == 0), "a union in it has a type without a value, or a value without a type");
    if (type == 0) return;
    require(type < kind.num_types && kind.tables[type] >= 0, "a union in it is of an unknown type");
    pending_.push_back({follow(where), kind.tables[type]});
  }

  const std::span<const std::byte> buffer_;
  const Schema& schema_;
  std::vector<Pending> pending_;
  size_t entries_ = 0, entries_bytes_ = 0, table_bytes_ = 0;  // of the table that is looked at
};

}  // namespace

Object checked_root(std::span<const std::byte> buffer, const char (&identifier)[5], const Schema& schema) {
  require(buffer.size() >= 8 && buffer.size() <= kMostBytes && std::memcmp(buffer.data() + 4, identifier, 4) == 0,
          "it does not begin as such a program does");
  return {buffer, Checker(buffer, schema).check()};
}

}  // namespace paraedge::flatbuffer
