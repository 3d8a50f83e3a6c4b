"""Operations with several equivalent implementations; each platform uses the fastest one."""
