"""What distillation is made of: objective, teachers, students, what is cached of them."""
