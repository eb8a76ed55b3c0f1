// The part of Arduino's interface that generated sketches use, declared anew.
#pragma once

struct SerialPort {
  void begin(unsigned long baud);
  void println(const char* text);
  explicit operator bool();
};
extern SerialPort Serial;
unsigned long millis();
