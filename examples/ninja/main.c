int printf(const char *, ...);
int sum(int);
int twice(int);
int native(int);

int main(void) { return printf("%d\n", native(sum(6)) + twice(3)) < 0; }
