package conform

func gradeFluxra(*session) grader    { return grader{} }
func gradeLumina(*session) grader    { return grader{} }
