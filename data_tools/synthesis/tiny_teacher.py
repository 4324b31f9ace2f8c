"""The former name of the offline teacher's command: `python -m data_tools.synthesis.tiny_teacher` still starts it."""

from data_tools.miniature.teacher import main

if __name__ == "__main__":
    main()
