// Reads flatbuffers from strangers: a whole buffer is checked against its schema before any of it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace paraedge::flatbuffer {

enum class Kind : uint8_t { unused, scalar, scalars, string, strings, table, tables, united };

struct Field {
  Kind kind;
  uint8_t width;  // bytes of a scalar, or of one of the scalars
  int16_t inner;  // which table, or which union
};
struct Table {
  const char* name;
  const Field* fields;
  size_t num_fields;
};
struct Union {
  const int16_t* tables;  // of each type's number; -1: none
  size_t num_types;
};
struct Schema {
  const Table* tables;
  const Union* unions;
  int16_t root;
};

// What is wrong with a program, without its file's name.
struct Damage : std::exception {
  explicit Damage(std::string text) : problem(std::move(text)) {}
  const char* what() const noexcept override { return problem.c_str(); }
  std::string problem;
};
inline void require(bool fine, const char* problem) {
  if (!fine) throw Damage(problem);
}

template <class T>
T read(std::span<const std::byte> bytes, size_t at) {  // little-endian, as every machine that paraedge runs on
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class T>
class Vector {
 public:
  Vector() = default;
  Vector(const std::byte* data, size_t size) : data_(data), size_(size) {}
  size_t size() const { return size_; }
  bool exists() const { return data_ != nullptr; }
  const std::byte* data() const { return data_; }
  T operator[](size_t index) const {
    T value;
    std::memcpy(&value, data_ + index * sizeof(T), sizeof value);
    return value;
  }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A table of a buffer that was checked. Its fields are read by their numbers in the schema, as what they are there.
class Object {
 public:
  Object() = default;
  Object(std::span<const std::byte> buffer, size_t at) : buffer_(buffer), at_(at) {}
  bool exists() const { return at_ != 0; }
  bool has(uint16_t field) const { return place(field) != 0; }

  template <class T>
  T scalar(uint16_t field, T otherwise = {}) const {
    const size_t where = place(field);
    return where ? read<T>(buffer_, where) : otherwise;
  }
  template <class T>
  Vector<T> scalars(uint16_t field) const {
    const auto [start, size] = vector(field);
    return start ? Vector<T>(buffer_.data() + start, size) : Vector<T>();
  }
  std::string_view string(uint16_t field) const {
    const auto [start, size] = vector(field);
    return start ? std::string_view(reinterpret_cast<const char*>(buffer_.data() + start), size) : std::string_view();
  }
  Object table(uint16_t field) const {
    const size_t where = place(field);
    return where ? Object(buffer_, where + read<uint32_t>(buffer_, where)) : Object();
  }
  size_t count(uint16_t field) const { return vector(field).second; }  // of tables
  Object table(uint16_t field, size_t index) const {
    const size_t where = vector(field).first + 4 * index;
    return {buffer_, where + read<uint32_t>(buffer_, where)};
  }

 private:
  size_t place(uint16_t field) const {
    if (at_ == 0) return 0;
    const size_t entries = at_ - static_cast<size_t>(static_cast<int64_t>(read<int32_t>(buffer_, at_)));
    const size_t entry = 4 + 2 * size_t{field};
    if (entry + 2 > read<uint16_t>(buffer_, entries)) return 0;
    const auto offset = read<uint16_t>(buffer_, entries + entry);
    return offset ? at_ + offset : 0;
  }
  std::pair<size_t, size_t> vector(uint16_t field) const {  // where its first element is, how many there are
    const size_t where = place(field);
    if (where == 0) return {0, 0};
    const size_t start = where + read<uint32_t>(buffer_, where);
    return {start + 4, read<uint32_t>(buffer_, start)};
  }

  std::span<const std::byte> buffer_;
  size_t at_ = 0;
};

// The root of a buffer, all of whose tables, vectors and strings are inside of it. Throws Damage.
Object checked_root(std::span<const std::byte> buffer, const char (&identifier)[5], const Schema& schema);

}  // namespace paraedge::flatbuffer
