// The header that makes Arduino's builder find the library.
