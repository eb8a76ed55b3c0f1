"""C and C++ sources around a .tflite file, and whole applications; everything that comes from a file is untrusted."""
