/* A label for a terminal. It is text from outside: bytes that a terminal would obey are shown as \xNN. */
#ifndef LABEL_TEXT_H
#define LABEL_TEXT_H
#include <stddef.h>
#include <stdio.h>

/* How many bytes at `at`, of UTF-8, are a control character, a mark of direction, or something else that is not seen. */
static size_t hidden_bytes(const unsigned char* at) {
  if (at[0] < 0x20 || at[0] == 0x7f) return 1;
  if ((at[0] == 0xc2 && at[1] < 0xa0) || (at[0] == 0xd8 && at[1] == 0x9c)) return 2; /* U+0080 to U+009F, U+061C */
  if (at[0] == 0xe2 && (at[1] == 0x80 || at[1] == 0x81)) return 3;                   /* U+2000 to U+207F */
  if (at[0] == 0xef && at[1] == 0xbb && at[2] == 0xbf) return 3;                     /* U+FEFF */
  if (at[0] == 0xf3 && at[1] == 0xa0) return 4;                                      /* tags */
  return 0;
}

/* Writes `label` into `text`, cut where `size` bytes end, and returns `text`. */
static inline const char* label_text(const char* label, char* text, size_t size) {
  const unsigned char* at = (const unsigned char*)label;
  size_t used = 0;
  while (*at != 0 && used + 5 <= size) {
    const size_t hidden = hidden_bytes(at);
    if (hidden == 0) text[used++] = (char)*at++;
    for (size_t i = 0; i < hidden && used + 5 <= size; ++i) used += (size_t)snprintf(text + used, 5, "\\x%02x", *at++);
  }
  text[used] = 0;
  return text;
}
#endif
