// Limits said in words before they hurt. When two nodes meet they tell each other what their disks, clocks and user databases are; the primary compares
// and sends events `warning code=... message=...`, each sentence once as long as it stays true. Nothing here refuses anything.
#pragma once
#include "common.h"

#define LIMITS_TEXT 6000

// ---- the exchange, as lines of the offers of the handshake ----
void limits_ask(char *text, size_t size);                        // primary: what its tree uses
void limits_answer(const char *asked, char *text, size_t size);  // secondary: the same of its own, and what it calls the owners that are named there
void limits_judge(const char *asked, const char *answered);      // primary

// ---- one node ----
void limits_begin(void); // watches the space of the file systems below the directories
